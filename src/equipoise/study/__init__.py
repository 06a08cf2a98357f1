"""Many runs: a study, their leaderboard, a search, a recommendation, merged adapters."""
