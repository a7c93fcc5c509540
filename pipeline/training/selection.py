"""Which dialogues and turns are streamed, and how often: expressions of pyarrow over the columns of the indexes.

Of dialogues they may name every column of `INDEX_SCHEMA` that is no list (language, user_voice, error_rate_max,
source_name, …), `seconds` and `characters`, each score of the text (coherence, …), and of each score of the turns
NAME_min, NAME_mean and NAME_max (snr_min, similarity_mean, …). Of turns: role, turn (0-based), turns (of the dialogue),
start, end, seconds, characters, error_rate, language, and each score by its name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.errors import UsageError
from pipeline.training.catalog import Catalog

_PARTS = {"min": np.fmin, "max": np.fmax, "mean": np.add}
_UNKNOWN = re.compile(r"FieldRef\.Name\((.*?)\)")


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """Its one chunk as it lies, which `combine_chunks` would copy; that of its chunks, if it has more."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class Table:
    """Columns that expressions are asked of; those of scores are made when one names them."""

    def __init__(
        self,
        what: str,
        table: pa.Table,
        score: Callable[[str], np.ndarray | None],
        names: Callable[[], list[str]],
    ):
        self._what = what
        self._table = table
        self._score = score
        self._names = names

    def evaluate(self, expression: pc.Expression, option: str) -> pa.ChunkedArray:
        """One value a row. Raises UsageError naming `option`, for a column that is not there and for what cannot be
        reckoned."""
        if not isinstance(expression, pc.Expression):
            raise UsageError(
                f"{option}: {expression!r} is none of pyarrow's expressions, as pyarrow.compute.field('turns') > 2 is"
            )
        while True:
            try:
                return ds.dataset(self._table).to_table(columns={"value": expression})["value"]
            except pa.ArrowInvalid as error:
                unknown = _UNKNOWN.search(str(error))
                if unknown is None:
                    raise UsageError(f"{option}: {expression}: {' '.join(str(error).split())}") from None
                self._add(unknown[1], option)
            except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                raise UsageError(f"{option}: {expression}: {' '.join(str(error).split())}") from None

    def _add(self, name: str, option: str) -> None:
        values = self._score(name)
        if values is None:
            known = sorted({*self._table.column_names, *self._names()})
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"{option}: {self._what} have no {name!r}; {hint}")
        self._table = self._table.append_column(name, pa.array(values, from_pandas=True))


class Selection:
    """The dialogues of a catalog, and their turns side by side.

    offsets: int64 [n + 1], where each dialogue's turns begin among all of them.
    """

    def __init__(self, catalog: Catalog):
        self._catalog = catalog
        self._scores: pa.Table | None = None
        lists = in_one(catalog.table["turn_role"])
        self.offsets = lists.offsets.to_numpy().astype(np.int64)
        self.offsets -= self.offsets[0] if len(self.offsets) else 0

    def turn_column(self, name: str) -> pa.Array:
        """An entry a turn of all dialogues."""
        return in_one(self._catalog.table[f"turn_{name}"]).flatten()

    def key(self, row: int) -> str:
        return str(self._catalog.table["key"][row])

    def dialogues(self, chosen: np.ndarray | None = None) -> Table:
        """chosen: bool, the turns that `seconds` and `characters` count; None: the whole dialogue, pauses too."""
        table = self._catalog.table
        flat = table.select([field.name for field in table.schema if not pa.types.is_list(field.type)])
        characters = self.turn_column("characters").to_numpy()
        seconds = table["duration"]
        if chosen is not None:
            characters = np.where(chosen, characters, 0)
            lengths = pc.subtract(self.turn_column("end"), self.turn_column("start")).to_numpy()
            seconds = pa.array(np.bincount(self.owners(), np.where(chosen, lengths, 0.0), len(table)))
        characters = np.add.reduceat(characters, self.offsets[:-1], dtype=np.int64)  # none is without a turn
        flat = flat.append_column("seconds", seconds).append_column("characters", pa.array(characters, "float64"))
        return Table("dialogues", flat, self._dialogue_score, self._dialogue_scores)

    def turns(self) -> Table:
        owner = self.owners()
        columns = {name: self.turn_column(name) for name in ("role", "start", "end", "characters", "error_rate")}
        columns["seconds"] = pc.subtract(columns["end"], columns["start"])
        columns["turn"] = pa.array(np.arange(len(owner)) - self.offsets[owner])
        columns["turns"] = pa.array(np.diff(self.offsets)[owner])
        columns["language"] = in_one(self._catalog.table["language"]).take(pa.array(owner))
        return Table("turns", pa.table(columns), self._turn_score, self._score_names)

    def owners(self) -> np.ndarray:
        """int64: of each turn the dialogue that it is in."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def _loaded(self) -> pa.Table:
        if self._scores is None:
            self._scores = self._catalog.scores()
        return self._scores

    def _score_names(self) -> list[str]:
        return sorted(set(self._loaded()["scores"].combine_chunks().flatten().field("name").to_pylist()))

    def _dialogue_scores(self) -> list[str]:
        text = set(self._loaded()["text_scores"].combine_chunks().flatten().field("name").to_pylist())
        return [*text, *(f"{name}_{part}" for name in self._score_names() for part in _PARTS)]

    def _turn_score(self, name: str) -> np.ndarray | None:
        """float64, an entry a turn, NaN where it has none; None where no turn has it."""
        lists = self._loaded()["scores"].combine_chunks()
        flat = lists.flatten()
        chosen = pc.equal(flat.field("name"), name)
        owner = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))[chosen.to_numpy(False).astype(bool)]
        if not len(owner):
            return None
        values = flat.field("values").filter(chosen)
        sizes = np.diff(values.offsets.to_numpy())
        out = np.full(self.offsets[-1], np.nan)
        place = np.repeat(self.offsets[owner], sizes) + (
            np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        )
        out[place] = values.flatten().to_numpy(zero_copy_only=False)
        return out

    def _dialogue_score(self, name: str) -> np.ndarray | None:
        base, _, part = name.rpartition("_")
        turns = self._turn_score(base) if part in _PARTS and base else None
        if turns is None:
            return self._text_score(name)
        starts, known = self.offsets[:-1], ~np.isnan(turns)
        if part != "mean":
            return _PARTS[part].reduceat(turns, starts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.add.reduceat(np.where(known, turns, 0.0), starts) / np.add.reduceat(known, starts)

    def _text_score(self, name: str) -> np.ndarray | None:
        lists = self._loaded()["text_scores"].combine_chunks()
        flat = lists.flatten()
        chosen = np.array([found == name for found in flat.field("name").to_pylist()], bool)
        if not chosen.any():
            return None
        out = np.full(len(lists), np.nan)
        owner = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
        out[owner[chosen]] = flat.field("value").to_numpy(zero_copy_only=False)[chosen]
        return out
