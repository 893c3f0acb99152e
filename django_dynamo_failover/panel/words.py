"""Numbers as a person reads them."""

#: Stands where there is no number.
NOTHING = "\N{EN DASH}"


def some(number: int, noun: str) -> str:
    """Return "1 change", "1,200 changes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return so many seconds in the largest units that say enough: "4 s", "12 min", "3 h 5 min"."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(hours / 24)} days"


def latency(seconds: float | None) -> str:
    """Return a short time: "21 µs", "4.2 ms", "1.05 s"; a dash for none."""
    if seconds is None:
        return NOTHING
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def size(bytes: float) -> str:
    """Return so many bytes: "512 B", "1.4 KB", "3.2 GB"."""
    if bytes < 1024:
        return f"{bytes:.0f} B"
    units = ("KB", "MB", "GB", "TB")
    for unit in units:
        bytes /= 1024
        if bytes < 1024 or unit == units[-1]:
            break
    return f"{bytes:,.1f} {unit}"


def dollars(amount: float) -> str:
    """Return an amount as rough as an estimate is: "$0.04", "$12", "$1,300"."""
    if amount >= 100:
        return f"${round(amount, -1 if amount < 1000 else -2):,.0f}"
    return f"${amount:.0f}" if amount >= 10 else f"${amount:.2f}"
