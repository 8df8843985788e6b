"""A distiller on one page."""


def summarize(model):
    """Return a table of networks, taps and the layers between them.

    Args:
        model: OnlineDistiller.

    Returns:
        str of several lines.
    """
    rows = [("network", "parameters", "tap", "feature map", "learns from")]
    wiring = model._wiring
    # Who is no network itself, but a source, stands behind the networks.
    names = model.network_names
    known = [*names, model.source.name if model.source is not None else "gate"]
    for k, (name, tap) in enumerate(zip(names, wiring.taps, strict=True)):
        learns = wiring.sources[k] if model.method.feature else wiring.kl_sources[k]
        if not (model.method.feature or model.method.kl):
            learns = ()
        rows.append(
            (
                name,
                f"{tap.network.count_params():,}",
                tap.layer_name,
                "x".join(map(str, tap.map_shape)),
                ", ".join(known[j] for j in learns) or "-",
            )
        )
    lines = [
        f"{model.name}: method {model.method.name}, topology {model.topology}, "
        f"forward {model.forward}, temperature {model.temperature:g}",
        *_table(rows),
        *(
            f"  {n}: {t.note}"
            for n, t in zip(names, wiring.taps, strict=True)
            if t.note
        ),
        *_checkpointing(names, wiring.taps),
        *_source(model.source),
        _layers("discriminators", model.discriminators),
        _layers("transfer layers", model.transfers),
    ]
    lines += [
        f"{phase.role} optimizer: {phase.describe()}" for phase in model.phases or ()
    ]
    return "\n".join(lines)


def _checkpointing(names, taps):
    if not any(tap.segments for tap in taps):
        return []
    counts = (
        f"{name} in {len(tap.segments)} segments"
        for name, tap in zip(names, taps, strict=True)
    )
    return [f"checkpointing: {', '.join(counts)}"]


def _source(source):
    if source is None:
        return []
    return [f"frozen source: {source.name} (parameters: {source.count_params():,})"]


def _layers(what, layers):
    if not layers:
        return f"{what}: none"
    counts = ", ".join(f"{layer.count_params():,}" for layer in layers)
    return f"{what}: {len(layers)} (parameters: {counts})"


def _table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
