"""From a model to evidence: tasks, scores, statistics, verdicts and gates."""
