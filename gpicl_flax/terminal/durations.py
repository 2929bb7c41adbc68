"""Times as people read them."""


def in_words(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any: 4:05, 12:00:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
