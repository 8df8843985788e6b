"""Summary of a distiller on one page."""

from afd_tf.text import as_table


def summarize(name, exchange, settings, phases):
    """Return a table of networks, taps and the layers between them.

    Args:
        name: str, the distiller's.
        exchange: Exchange.
        settings: str, the distiller's other settings on one line.
        phases: iterable of Phase; none before `compile`.

    Returns:
        str of several lines.
    """
    method = exchange.method
    source = exchange.source and exchange.source.network
    # Behind the networks stands the peer that is none of them: a source or a gate.
    known = [*exchange.names, source.name if source is not None else "gate"]
    peers = exchange.peers if method.feature else exchange.kl_peers
    rows = [("network", "parameters", "tap", "feature map", "learns from")]
    for k, (own, network) in enumerate(
        zip(exchange.names, exchange.networks, strict=True)
    ):
        tap = exchange.taps[k] if exchange.taps else None
        learns = peers[k] if method.feature or method.kl else ()
        rows.append(
            (
                own,
                f"{network.count_params():,}",
                tap.layer_name if tap else "-",
                "x".join(map(str, tap.map_shape)) if tap else "-",
                ", ".join(known[j] for j in learns) or "-",
            )
        )
    lines = [f"{name}: method {method.name}, topology {exchange.topology}, {settings}"]
    lines += [f"  {row}" for row in as_table(rows, right=(), rule=False).splitlines()]
    taps = list(zip(exchange.names, exchange.taps, strict=False))
    lines += [f"  {own}: {tap.note}" for own, tap in taps if tap.note]
    cut = [
        f"{own} in {len(tap.segments)} segments" for own, tap in taps if tap.segments
    ]
    if cut:
        lines.append(f"checkpointing: {', '.join(cut)}")
    if source is not None:
        parameters = f"{source.count_params():,}"
        lines.append(f"frozen source: {source.name} (parameters: {parameters})")
    lines.append(_layers("discriminators", exchange.discriminators))
    transfers = [layer for layer in exchange.transfers if layer is not None]
    lines.append(_layers("transfer layers", transfers))
    lines += [f"{phase.role} optimizer: {phase.describe()}" for phase in phases]
    return "\n".join(lines)


def _layers(what, layers):
    if not layers:
        return f"{what}: none"
    counts = ", ".join(f"{layer.count_params():,}" for layer in layers)
    return f"{what}: {len(layers)} (parameters: {counts})"
