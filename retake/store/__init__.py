"""Where every result is kept: objects by content, records by key, locks, quarantine (docs/caching.md)."""

from retake.store.store import Record, Store, warn

__all__ = ["Record", "Store", "warn"]
