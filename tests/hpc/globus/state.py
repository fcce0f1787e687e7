"""What the stand-in knows, in SQLite: functions, endpoints, tasks, tokens, accounts. A restart forgets nothing."""

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

Fact = dict[str, Any]


class State:
    """Facts by kind and id; safe for threads.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        """Held around what must not be seen half done."""
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("CREATE TABLE IF NOT EXISTS fact (kind TEXT, id TEXT, body TEXT, PRIMARY KEY (kind, id))")

    def get(self, kind: str, name: str) -> Fact | None:
        """Read a fact; None when there is none."""
        with self.lock:
            row = self._file.execute("SELECT body FROM fact WHERE kind = ? AND id = ?", (kind, name)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, kind: str, name: str, fact: Fact) -> None:
        """Write a fact."""
        with self.lock:
            self._file.execute("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", (kind, name, json.dumps(fact)))

    def change(self, kind: str, name: str, **changes: object) -> Fact | None:
        """Change some of a fact; None when there is none."""
        with self.lock:
            fact = self.get(kind, name)
            if fact is not None:
                fact |= changes
                self.put(kind, name, fact)
            return fact

    def drop(self, kind: str, name: str | None = None) -> None:
        """Forget a fact, or a whole kind."""
        with self.lock:
            if name is None:
                self._file.execute("DELETE FROM fact WHERE kind = ?", (kind,))
            else:
                self._file.execute("DELETE FROM fact WHERE kind = ? AND id = ?", (kind, name))

    def all(self, kind: str) -> dict[str, Fact]:
        """Read a kind, the oldest first."""
        with self.lock:
            rows = self._file.execute("SELECT id, body FROM fact WHERE kind = ? ORDER BY rowid", (kind,)).fetchall()
        return {name: json.loads(body) for name, body in rows}
