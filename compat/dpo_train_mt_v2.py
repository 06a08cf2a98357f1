"""The known command for stages: `--progressive --stage N`. See docs/original-recipes.md."""

from equipoise.compat.program import main

if __name__ == "__main__":
    raise SystemExit(main("dpo_train_mt_v2"))
