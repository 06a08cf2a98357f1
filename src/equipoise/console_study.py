"""What the commands about many runs show: study, leaderboard, recommendation, search, merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.console import number, table
from equipoise.progress import duration


def study_tables(record: Mapping[str, Any]) -> None:
    """The rows of a study and where its time went."""
    columns = ("run", "state", "kept", "refused", "time", "training", "measuring", "other", "reference", "why not")
    rows = [
        (
            row["name"],
            row["state"],
            row["kept_stage"] or "",
            ", ".join(row["refused"]),
            *(duration(row[key]) for key in ("seconds", "training_seconds", "measuring_seconds", "other_seconds")),
            f"{row['reference_computed']} computed, {row['reference_reused']} reused",
            row["reason"],
        )
        for row in record["rows"]
    ]
    table("Study (measuring: generation and scoring)", columns, rows, right=columns[4:8])
    totals = record["totals"]
    print(f"{totals['done']} of {totals['runs']} runs done, {totals['failed']} failed")
    if totals["overhead"] is not None:
        print(f"outside training, generation and scoring: {totals['overhead']:.1%} of {duration(totals['seconds'])}")
    print(
        f"reference log-probabilities: {totals['reference_computed']} computed, {totals['reference_reused']} reused; "
        f"base scores: computed by {totals['base_scores_computed']} runs, the others took them from the store"
    )


def board_tables(record: Mapping[str, Any]) -> None:
    """A leaderboard: the standing, the domains, and what to keep in mind."""
    columns = (
        "recipe",
        "seeds",
        "feasible",
        "front",
        "overall",
        "interval",
        "rank",
        "90% of weightings",
        "first",
        "tied",
    )
    rows = [
        (
            row["name"],
            len(row["seeds"]),
            "yes" if row["feasible"] else f"worse: {', '.join(row['worse_in'])}",
            "front" if row["on_front"] else ", ".join(f"below {name}" for name in row["dominated_by"]),
            *_overall(row["overall"]),
            *_ranks(row["ranks"]),
            row["letters"],
        )
        for row in record["rows"]
    ]
    title = f"Leaderboard ({record['split']} items, {record['confidence']:.0%} confidence)"
    table(title, columns, rows, right=("seeds", "overall", "interval", "rank", "90% of weightings", "first"))
    heads = ("recipe", "domain", "gain", "interval", "p (Holm)", "n", "verdict")
    cells = [
        (
            row["name"] if place == 0 else "",
            domain,
            f"{gain['difference']:+.3f}",
            _interval(gain["ci"]),
            number(gain["p_holm"], 4) if gain["p_holm"] >= 0.0001 else "<0.0001",
            gain["n"],
            gain["verdict"],
        )
        for row in record["rows"]
        for place, (domain, gain) in enumerate(row["domains"].items())
    ]
    table("Gains over the base", heads, cells, right=heads[2:6])
    if "versus" in record:
        _versus(record["versus"])
    print(record["formula"])
    print("tied: two recipes that share a letter were not told apart in any domain")
    for note in record["notes"]:
        print(f"note: {note}")


def _versus(record: Mapping[str, Any]) -> None:
    heads = ("recipe", "domain", "difference", "interval", "p (Holm)", "n")
    cells = [
        (
            row["name"] if place == 0 else "",
            domain,
            f"{found['difference']:+.3f}",
            _interval(found["ci"]),
            number(found["p_holm"], 4) if "p_holm" in found else "",
            found["n"],
        )
        for row in record["rows"]
        for place, (domain, found) in enumerate([*row["domains"].items(), ("overall", row["overall"])])
        if found is not None
    ]
    table(f"How much more each gained than {record['to']}", heads, cells, right=heads[2:])


def recommendation(record: Mapping[str, Any]) -> None:
    """What to ship, why, and what it costs."""
    chosen = record["recommended"]
    print(f"priority {record['priority']}: " + (f"ship {chosen}" if chosen else "keep the base model"))
    if record["condition"]:
        print(f"  {record['condition']}")
    for reason in record["why"]:
        print(f"  {reason}")
    if chosen:
        print("  runs: " + ", ".join(record["runs"]))
    if record["without_adapter"]:
        gone = ", ".join(record["without_adapter"])
        print(f"  the adapter of these runs is missing, so they cannot be shipped as they are: {gone}")
    if record["costs"]:
        print(f"{record['costs_are']}:")
        for cost in record["costs"]:
            print(f"  {cost}")
    if record["not_distinguishable"]:
        print(f"not told apart from {chosen or record['candidate']}: {', '.join(record['not_distinguishable'])}")


def search_tables(record: Mapping[str, Any]) -> None:
    """The trials of a search, the winner, and its confirmation."""
    trials = record["trials"]
    domains = list(record["domains"])
    columns = ("trial", "state", "values", *domains, "why not")
    rows = [
        (
            row["number"],
            row["state"],
            ", ".join(f"{key}={value}" for key, value in row["params"].items()),
            *(f"{row['gains'][name]:+.3f}" if row["gains"] else "" for name in domains),
            row["reason"] or ("a gate rule was missed" if row["missed"] > 0 else ""),
        )
        for row in trials
    ]
    table("Trials (gain over the base, dev items)", columns, rows, right=domains)
    winner = record["winner"]
    for note in record["notes"]:
        print(f"note: {note}")
    if winner is None:
        print("no winner: no trial passed its gates and held every domain")
    else:
        print(f"winner on dev items: trial {winner['number']} ({winner['run']})")
        _domains("The winner on test items, which no choice has seen", record["test"]["domains"])
        said = "confirmed" if record["confirmed"] else "NOT confirmed: no gain is shown, or a domain is worse"
        print(f"{said} (test items)")
    for reason in record["why"]:
        print(f"  {reason}")


def merge_tables(record: Mapping[str, Any]) -> None:
    """The coefficients that were tried, and what test items say of the best."""
    columns = ("weights", "gate", "allowed", "overall")
    rows = [
        (
            ", ".join(f"{weight:g}" for weight in row["weights"]),
            row["outcome"],
            "yes" if row["allowed"] else "no",
            f"{row['overall']:+.3f}",
        )
        for row in record["tried"]
    ]
    table("Coefficients (dev items)", columns, rows, right=("overall",))
    if record["test"]:
        _domains("The best on test items", record["test"])


def _domains(title: str, gains: Mapping[str, Mapping[str, Any]]) -> None:
    heads = ("domain", "gain", "interval", "n", "verdict")
    cells = [
        (name, f"{gain['difference']:+.3f}", _interval(gain["ci"]), gain["n"], gain["verdict"])
        for name, gain in gains.items()
    ]
    table(title, heads, cells, right=heads[1:4])


def _interval(ci: Sequence[float]) -> str:
    return f"{ci[0]:+.3f} to {ci[1]:+.3f}"


def _overall(found: Mapping[str, Any] | None) -> tuple[str, str]:
    return (f"{found['difference']:+.3f}", _interval(found["ci"])) if found else ("", "")


def _ranks(ranks: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if ranks is None:
        return "", "", ""
    return str(ranks["rank"]), f"{ranks['low']} to {ranks['high']}", f"{ranks['first']:.0%}"
