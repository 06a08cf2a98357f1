"""The known command for the mix of three sources (experiment 4). See docs/original-recipes.md."""

from equipoise.compat.program import main

if __name__ == "__main__":
    raise SystemExit(main("run_3way_hybrid"))
