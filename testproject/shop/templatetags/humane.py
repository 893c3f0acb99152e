"""A template filter for durations."""

from django import template

register = template.Library()


@register.filter
def humane(seconds: float) -> str:
    """Return seconds as people say them, such as ``3 min 20 s``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
