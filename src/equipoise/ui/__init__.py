"""The local web app: a list of runs, one run live, reports, comparisons, and a talk with base and tuned model."""
