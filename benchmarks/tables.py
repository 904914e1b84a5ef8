"""The results of `gpu.py` for people."""


def ratio(times: dict[str, dict[str, float]], name: str, suffix: str = "") -> str:
    """How many times as long as ours another takes."""
    if name + suffix not in times:
        return "–"
    return f"{times[name + suffix]['us'] / times['ours' + suffix]['us']:.2f}"


def table(found: dict) -> str:
    """The results for people, losing rows among them."""
    lines = [
        "| block | way | ours µs | graphed | eager | smart | compile "
        "| graphed: eager | compile | library | jax |",
        f"|{' --- |' * 11}",
    ]
    for row in found.get("blocks", ()):
        for kind in ("forward", "both"):
            times = row[kind]
            ours = f"{times['ours']['us']:.1f} | {times['ours graphed']['us']:.1f}"
            ratios = [ratio(times, name) for name in ("eager", "smart", "compile")]
            graphed = ("eager", "compile", "library", "jax")
            ratios += [ratio(times, name, " graphed") for name in graphed]
            lines.append(f"| {row['block']} | {kind} | {ours} | {' | '.join(ratios)} |")
    lines += [
        "",
        "| network | batch | ours µs | graphed | eager | compile | graphed: eager | compile "
        "| memory: eager |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found.get("steps", ()):
        times, memory = row["us"], row["memory"]
        ours = f"{times['ours']['us']:.0f} | {times['ours graphed']['us']:.0f}"
        ratios = [ratio(times, name) for name in ("eager", "compile")]
        ratios += [ratio(times, name, " graphed") for name in ("eager", "compile")]
        more = f"{memory['eager'] / memory['ours']:.2f}" if memory else "–"
        lines.append(
            f"| {row['network']} | {row['batch']} | {ours} | {' | '.join(ratios)} | {more} |"
        )
    return "\n".join(lines)
