"""The known command for one stage: pure Reddit, `--use_hybrid`, `--use_3way_hybrid`. See docs/original-recipes.md."""

from equipoise.compat.program import main

if __name__ == "__main__":
    raise SystemExit(main("dpo_train_mt"))
