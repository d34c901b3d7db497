"""The store of an index: moments and the videos that they are of, in LanceDB tables in a folder or an object store.

Two tables. ``moments`` has a row a window; those of a video are replaced by one commit. ``videos`` has a row a file and
is written after its moments: only then does the video count as stored, and only moments of such videos are ever found.
So a process that is killed at any time leaves an index that opens, and doing its work again doubles nothing. Both have
a primary key: of two processes that store the same video at once, the second replaces the rows of the first.

Nothing is kept beside the tables, and no lock is taken: commits are renames in a folder and conditional writes in an
object store, so that both serve alike.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from heapq import nlargest
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from videollm.errors import MissingDependencyError, MomentIndexError
from videollm.moments import ranking
from videollm.moments.moment import VECTOR_KINDS, Found, Moment, Reason, VectorKind, Video

SCHEMA_VERSION = 1
SAMPLE = 1000
"""Windows from which it is known what is usual."""
POOL = 200
"""Windows of each way of finding that are ranked together, at least."""
ALONE = 100
"""As many where a vector is asked with alone: nothing else is to be ranked beside them."""
WINDOWS_OF_A_HIT = 4
"""More where so many stretches are asked for: windows overlap, and those of one event become one."""
READ = 1000
"""Texts that are read for them: full-text fits do not tell those in which the words stand in the query's order."""

SCHEMES = ("s3", "gs", "az")
"""Object stores that an index may lie in; keys and regions come from the environment, as for the stores' own tools."""
INDEXED_FROM = 50_000
"""Vectors of a kind from which they are found through an index of their own; fewer are all compared."""
IN_A_PARTITION = 1_000
"""Vectors of an index that lie together, about: LanceDB's own 4,096 make a search compare eight times as many."""
INDEXED_EVERY = 5_000
"""New vectors from which they are taken into an index; fewer are compared beside it."""
KEPT_VERSIONS = timedelta(minutes=10)
"""So long what was replaced stays on disk, for those who are just reading it."""
CHANGE_TRIES = 10
"""Of a change to an index that another process came before."""
PROBES = 24
"""Partitions that are looked into. Each holds exact vectors, so nothing is lost but what lies in others."""
LANCE_LOG = "warn,lance::index::vector::builder=error"
"""What LanceDB prints, where the environment does not say. As an index grows, it divides partitions that are too large
and warns that the index before lacks the new ones; and of each that is empty. Nothing is lost by either."""

_TOLD = ("start_seconds", "end_seconds", "narration", "sound")
_SHOWN = ("id", "video", *_TOLD)
_WORDS: dict[str, Reason] = {"narration": "narrated", "sound": "heard in words"}


class MomentStore:
    """Moments that can be stored, replaced and found. Several processes may write and search at once."""

    def __init__(self, database: Any, address: str, encoders: Mapping[VectorKind, str]) -> None:
        self.address, self.encoders = address, dict(encoders)
        self._moments, self._videos = database.open_table("moments"), database.open_table("videos")
        schema = self._moments.schema
        self.widths: dict[VectorKind, int] = {
            kind: schema.field(kind).type.list_size for kind in VECTOR_KINDS if kind in schema.names
        }
        """Numbers in a vector, by the kinds that are stored."""
        self._known: tuple[int, list[Video]] = (-1, [])
        self._samples: dict[VectorKind, tuple[int, np.ndarray]] = {}

    @staticmethod
    def exists(address: str | Path) -> bool:
        """Whether there is an index, of whatever version; raises MomentIndexError where that cannot be known."""
        if "://" not in str(address) and not Path(address).exists():
            return False
        return _tables(_connect(address)) >= {"moments", "videos"}

    @classmethod
    def create(
        cls, address: str | Path, widths: Mapping[VectorKind, int], encoders: Mapping[VectorKind, str]
    ) -> MomentStore:
        """A new index, or the one that is there, if its vectors are of the same encoders.

        Args:
            address: a folder, made if need be, or the URL of an object store (``s3://...``).
            widths: numbers in a vector, by kind; kinds left out are not stored.
            encoders: which encoder the vectors of a kind are of.

        Raises:
            MomentIndexError: the folder holds something else, or vectors of other encoders.
        """
        database = _connect(address)
        import pyarrow as pa

        if _tables(database) >= {"moments", "videos"}:
            store = cls.open(address)
            if store.encoders != dict(encoders):
                raise MomentIndexError(
                    f"{address} was made with {_told(store.encoders)}, asked for {_told(encoders)}; use the same, or "
                    "make another index"
                )
            return store
        if "://" not in str(address) and Path(address).is_dir() and not _ours(Path(address)):
            raise MomentIndexError(f"{address} holds other files; give an empty or a new folder for the index")
        about = {b"videollm": json.dumps({"schema": SCHEMA_VERSION, "encoders": dict(encoders)}).encode()}
        columns: list[Any] = [
            _key("id"), ("video", pa.string()), ("start_seconds", pa.float64()),
            ("end_seconds", pa.float64()), ("narration", pa.string()), ("sound", pa.string()),
        ]  # fmt: skip
        columns += [(kind, pa.list_(pa.float32(), widths[kind])) for kind in VECTOR_KINDS if kind in widths]
        videos: list[Any] = [
            _key("path"), ("content", pa.string()), ("duration_seconds", pa.float64()),
            ("moments", pa.int64()), ("made_by", pa.string()),
        ]  # fmt: skip
        with _in_words(address):
            moments = database.create_table("moments", schema=pa.schema(columns, metadata=about), exist_ok=True)
            _index_columns(moments)
            database.create_table("videos", schema=pa.schema(videos), exist_ok=True)
            return cls(database, str(address), encoders)

    @classmethod
    def open(cls, address: str | Path) -> MomentStore:
        """An index that is there.

        Raises:
            MomentIndexError: there is none, or one of a version that this package cannot read.
        """
        database = _connect(address, must_exist=True)
        if not _tables(database) >= {"moments", "videos"}:
            raise MomentIndexError(f"{address} holds no index; make one with: videollm index FOLDER --into {address}")
        with _in_words(address):
            about = json.loads((database.open_table("moments").schema.metadata or {}).get(b"videollm", b"{}"))
        if about.get("schema") != SCHEMA_VERSION:
            raise MomentIndexError(
                f"{address} has version {about.get('schema')} of the index, this videollm reads {SCHEMA_VERSION}; "
                "index the videos again into another folder"
            )
        with _in_words(address):
            return cls(database, str(address), about["encoders"])

    # --- writing

    def put(self, video: Video, moments: Sequence[Moment]) -> None:
        """Store a video in place of whatever its path held before.

        Raises:
            ValueError: the counts differ, or a vector has another width than the index.
        """
        if video.moments != len(moments):
            raise ValueError(f"{video.path}: {video.moments} moments announced, {len(moments)} given")
        import pyarrow as pa

        schema = self._moments.schema
        columns: dict[str, Any] = {
            "id": [f"{video.content}/{number}" for number in range(len(moments))],
            "video": [video.content] * len(moments),
            **{name: [getattr(one, name) for one in moments] for name in _TOLD},
        }
        for kind, width in self.widths.items():
            columns[kind] = _units([one.vectors.get(kind) for one in moments], width)
        rows = pa.table(columns, schema=schema)
        about = pa.Table.from_pylist([vars(video)], schema=self._videos.schema)
        with self._newest():
            before = self._stored(video.path)
            self._replace(self._moments, "id", rows, f"video = {_quoted(video.content)}")
            self._replace(self._videos, "path", about, f"path = {_quoted(video.path)}")
            if before is not None and before.content != video.content:
                self._forget(before.content)

    def remove(self, path: str) -> None:
        """Take a video out; nothing happens where it is not in."""
        with self._newest():
            known = self._stored(path)
            if known is not None:
                self._videos.delete(f"path = {_quoted(path)}")
                self._forget(known.content)

    def tidy(self, kept: timedelta = KEPT_VERSIONS) -> None:
        """Join small files, take the newest moments into the indexes, and make those of vectors that are worth it.

        Args:
            kept: for how long what was replaced stays on disk; none only where no other process reads or writes.
        """
        with self._newest():
            _until_committed(self._videos, partial(self._videos.optimize, cleanup_older_than=kept))
            left = [index.num_unindexed_rows for index in self._indexes(VECTOR_KINDS)]
            if 0 < max(left, default=0) < INDEXED_EVERY:
                return  # so few are soon compared, and an index is nearly made anew to take them in
            _until_committed(self._moments, partial(self._moments.optimize, cleanup_older_than=kept))
            if self._moments.count_rows() >= INDEXED_FROM:
                for kind in self.widths:
                    _until_committed(self._moments, partial(self._index_vectors, kind))

    def _index_vectors(self, kind: VectorKind) -> None:
        """An index of exact vectors in partitions, where there is none. It grows by itself, and keeps their size."""
        from lancedb.index import IvfFlat

        name = f"{kind}_by_{IN_A_PARTITION}"
        there = {index.name for index in self._indexes([kind])}
        if name not in there:
            if self._moments.count_rows(f"{kind} IS NOT NULL") < INDEXED_FROM:
                return
            config = IvfFlat(distance_type="cosine", target_partition_size=IN_A_PARTITION)
            self._moments.create_index(kind, config=config, name=name)
        for other in there - {name}:  # with partitions of another size
            self._moments.drop_index(other)

    def _indexes(self, columns: Sequence[str]) -> list[Any]:
        return [index for index in self._moments.list_indices() if index.columns[0] in columns]

    def _replace(self, table: Any, key: str, rows: Any, among: str) -> None:
        """In one commit: these rows, and no others among those that the condition names."""
        there = table.count_rows(among)
        if not rows.num_rows:
            if there:
                table.delete(among)
            return
        merge = table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
        if there > rows.num_rows:  # only then, because it reads the whole table
            merge = merge.when_not_matched_by_source_delete(among)
        merge.execute(rows)

    def _stored(self, path: str) -> Video | None:
        """What is known of a path, without reading of the others."""
        rows = self._videos.search().where(f"path = {_quoted(path)}").limit(1).to_list()
        return Video(**rows[0]) if rows else None

    def _forget(self, content: str) -> None:
        """The moments of a file that no path has any more."""
        self._videos.checkout_latest()
        if not self._videos.count_rows(f"content = {_quoted(content)}"):
            self._moments.delete(f"video = {_quoted(content)}")

    # --- reading

    @contextmanager
    def _newest(self) -> Iterator[None]:
        """Look once what other processes have stored; each look reads the names of all versions that are kept.

        Videos come first: then the moments of all of them are seen.
        """
        with _in_words(self.address):
            self._videos.checkout_latest()
            self._moments.checkout_latest()
            yield

    def videos(self) -> list[Video]:
        """What is stored, by path."""
        with self._newest():
            return list(self._all_videos())

    def whole(self) -> list[Video]:
        """What is stored with all of its moments, by path.

        Where one process replaces a file just as another stores the same bytes under another path, these lose theirs.
        """
        with self._newest():
            videos = self._all_videos()
            rows = self._moments.search().select(["video"]).limit(max(self._moments.count_rows(), 1)).to_arrow()
            counts = {one["values"]: one["counts"] for one in rows["video"].value_counts().to_pylist()}
        return [video for video in videos if counts.get(video.content, 0) == video.moments]

    def _all_videos(self) -> list[Video]:
        version = self._videos.version
        if version != self._known[0]:
            rows = self._videos.to_arrow().to_pylist()
            self._known = version, sorted((Video(**row) for row in rows), key=lambda video: video.path)
        return self._known[1]

    def moments(self, path: str, *, with_vectors: bool = False) -> list[Moment]:
        """What is told of the windows of a video, in their order; none where it is not stored."""
        columns = ["start_seconds", "end_seconds", "narration", "sound"]
        kinds: list[VectorKind] = list(self.widths) if with_vectors else []
        with self._newest():
            video = self._stored(path)
            if video is None:
                return []
            query = self._moments.search().where(f"video = {_quoted(video.content)}")
            rows = query.select([*columns, *kinds]).limit(max(video.moments, 1)).to_list()
        rows.sort(key=lambda row: (row["start_seconds"], row["end_seconds"]))
        vectors: list[dict[VectorKind, np.ndarray]] = [
            {kind: np.asarray(row[kind], np.float32) for kind in kinds if row[kind] is not None} for row in rows
        ]
        told = zip(rows, vectors, strict=True)
        return [Moment(**{name: row[name] for name in columns}, vectors=found) for row, found in told]

    def __len__(self) -> int:
        """Moments, those of videos that are just being stored included."""
        with self._newest():
            return self._moments.count_rows()

    def search(
        self,
        words: str | Mapping[Reason, str] | None = None,
        vectors: Mapping[VectorKind, np.ndarray] | None = None,
        *,
        paths: Iterable[str] | None = None,
        between_seconds: tuple[float, float] | None = None,
        limit: int = 10,
    ) -> list[Found]:
        """Moments by words and by vectors, in one ranking (`videollm.moments.ranking`).

        Args:
            words: looked for in narrations and descriptions of sound; other words for each by the way of finding.
            vectors: float32 ``(D,)`` by kind, compared with those of each window.
            paths: only in these videos.
            between_seconds: only windows that lie at least partly in this stretch of their video.
            limit: stretches, the best first.

        Raises:
            MomentIndexError: a vector of a kind or width that the index does not have.
        """
        for kind, vector in (vectors or {}).items():
            self._check(kind, vector)
        with self._newest():
            return self._search(words, vectors or {}, None if paths is None else set(paths), between_seconds, limit)

    def _search(
        self,
        words: str | Mapping[Reason, str] | None,
        vectors: Mapping[VectorKind, np.ndarray],
        chosen: set[str] | None,
        between_seconds: tuple[float, float] | None,
        limit: int,
    ) -> list[Found]:
        among = [video for video in reversed(self._all_videos()) if chosen is None or video.path in chosen]
        by_content = {video.content: video.path for video in among}
        if not by_content or limit < 1:
            return []
        where = []
        if chosen is not None:
            where.append(f"video IN ({', '.join(map(_quoted, by_content))})")
        if between_seconds is not None:
            where.append(f"end_seconds > {between_seconds[0]:f} AND start_seconds < {between_seconds[1]:f}")
        rows: dict[str, dict[str, Any]] = {}
        ways: dict[Reason, dict[str, float]] = {}
        usual: dict[Reason, tuple[float, float]] = {}

        def collect(way: Reason, query: Any, conditions: Sequence[str], most: int) -> None:
            if conditions:
                query = query.where(" AND ".join(conditions), prefilter=True)
            columns = [*_SHOWN, "_score" if way in _WORDS.values() else "_distance"]
            found = [row for row in query.select(columns).limit(most).to_list() if row["video"] in by_content]
            rows.update((row["id"], row) for row in found)
            fits = {row["id"]: row["_score"] if "_score" in row else 1 - row["_distance"] for row in found}
            ways.setdefault(way, {}).update(fits)

        pool = max(ALONE if len(vectors) == 1 and not words else POOL, WINDOWS_OF_A_HIT * limit)
        few = chosen is not None and sum(video.moments for video in among) < INDEXED_FROM

        def near(kind: VectorKind, vector: np.ndarray) -> Any:
            return self._moments.search(vector, vector_column_name=kind).distance_type("cosine")

        said = dict.fromkeys(_WORDS.values(), words) if isinstance(words, str) else words or {}
        for column, way in _WORDS.items():
            plain = _plain(said.get(way) or "")
            if plain:
                collect(way, self._moments.search(plain, query_type="fts", fts_columns=column), where, READ)
                texts = {key: rows[key][column] for key in ways[way]}
                fits = ranking.in_order(ways[way], texts, said[way])
                # By id where they fit equally well: the index gives these in any order.
                ways[way] = dict(nlargest(pool, fits.items(), key=lambda one: (round(one[1], 6), one[0])))
        for kind, vector in vectors.items():
            usual[kind] = self._usual(kind, vector)
            query = near(kind, vector)
            if few:
                query = query.bypass_vector_index()  # what is so few is sooner compared than looked for
            most = 0 if where else PROBES  # 0: as many as it takes, where a filter leaves too few
            collect(kind, query.minimum_nprobes(PROBES).maximum_nprobes(most), where, pool)
        # What is near in one sense need not be among the nearest in the other: how near it is there decides.
        for kind, vector in vectors.items() if len(vectors) > 1 else ():
            missing = sorted({key for fits in ways.values() for key in fits} - ways[kind].keys())
            if missing:
                those = f"id IN ({', '.join(map(_quoted, missing))})"
                collect(kind, near(kind, vector).bypass_vector_index(), [those], len(missing))
        return ranking.joined(rows, ways, usual, by_content, limit, same_words=isinstance(words, str))

    def familiar(self, words: str) -> tuple[float, float]:
        """How well words fit what is told of pictures and of sounds, at best: full-text fits, 0 where nothing fits."""
        found = []
        with self._newest():
            for column in _WORDS:
                plain = _plain(words)
                query = self._moments.search(plain, query_type="fts", fts_columns=column).select(["id", "_score"])
                found.append(max((row["_score"] for row in query.limit(1).to_list()), default=0.0) if plain else 0.0)
        return found[0], found[1]

    def told(self, most: int) -> tuple[list[str], list[str]]:
        """Different narrations, and different descriptions of sounds, of some windows.

        Args:
            most: how many of each.
        """
        with self._newest():
            rows = self._moments.search().select(list(_WORDS)).limit(SAMPLE).to_list()
        narrations, sounds = (list(dict.fromkeys(row[column] for row in rows if row[column])) for column in _WORDS)
        return narrations[:most], sounds[:most]

    def _usual(self, kind: VectorKind, vector: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation of a vector's cosines with a sample of all windows."""
        now = self._moments.version
        version, sample = self._samples.get(kind, (-1, None))
        if sample is None or version != now:
            column = self._moments.search().select([kind]).limit(SAMPLE).to_arrow()[kind].combine_chunks().drop_null()
            width = len(vector)
            sample = column.flatten().to_numpy().reshape(-1, width)
            self._samples[kind] = now, sample
        cosines = sample @ (vector / np.linalg.norm(vector))
        return (float(cosines.mean()), float(cosines.std())) if len(cosines) else (0.0, 1.0)

    def check_encoder(self, kind: VectorKind, name: str) -> None:
        """Raises MomentIndexError where the vectors of a kind are of another encoder, or there are none."""
        if self.encoders.get(kind) != name:
            raise MomentIndexError(
                f"{self.address} was made with {_told(self.encoders)}, asked with {name}; search with the encoder that "
                "made the index, or with words alone"
            )

    def _check(self, kind: VectorKind, vector: np.ndarray) -> None:
        width = self.widths.get(kind)
        if width is None:
            raise MomentIndexError(f"{self.address} holds no vectors of kind {kind!r}; it has {_told(self.encoders)}")
        if vector.shape != (width,):
            raise MomentIndexError(
                f"{self.address} holds {kind!r} vectors of {width} numbers by {self.encoders.get(kind)}, asked with "
                f"{vector.shape}; search with the encoder that made the index"
            )


def _connect(address: str | Path, must_exist: bool = False) -> Any:
    os.environ.setdefault("LANCEDB_LOG", LANCE_LOG)  # read when it is imported
    try:
        import lancedb
    except ImportError:
        raise MissingDependencyError("an index of moments needs lancedb: pip install 'videollm[index]'") from None
    scheme, found, _ = str(address).partition("://")
    if found and scheme not in SCHEMES:
        raise MomentIndexError(
            f"an index cannot lie in {address}; give a folder, or a place in an object store: "
            f"{', '.join(f'{one}://' for one in SCHEMES)}"
        )
    if not found:
        if must_exist and not Path(address).is_dir():
            raise MomentIndexError(f"no index at {address}; make one with: videollm index FOLDER --into {address}")
        if Path(address).exists() and not Path(address).is_dir():
            raise MomentIndexError(f"{address} is a file, where an index is a folder; choose another name")
    with _in_words(address):
        return lancedb.connect(str(address))  # what others have stored is looked for by `MomentStore._newest`


@contextmanager
def _in_words(address: str | Path) -> Iterator[None]:
    """What goes wrong in a disk, in a damaged file or in an object store, as one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MomentIndexError(
            f"the index {address} cannot be read or written ({reason}); look for free space, permissions and the "
            "network, or make another index"
        ) from error


def _tables(database: Any) -> set[str]:
    with _in_words(database.uri):
        return set(database.list_tables().tables)


def _key(name: str) -> Any:
    """A column whose values are unique. Without saying so, two processes that insert the same at once double it."""
    import pyarrow as pa

    return pa.field(name, pa.string(), nullable=False, metadata={b"lance-schema:unenforced-primary-key": b"true"})


def _index_columns(moments: Any) -> None:
    """What words and names are found by: without, every moment is read to store the next."""
    from lancedb.index import FTS, BTree

    for column, config in (*((column, FTS()) for column in _WORDS), ("id", BTree()), ("video", BTree())):

        def make(column: str = column, config: Any = config) -> None:
            if not any(list(one.columns) == [column] for one in moments.list_indices()):
                moments.create_index(column, config=config)

        _until_committed(moments, make)


def _until_committed(table: Any, change: Callable[[], object]) -> None:
    """Does what another process may come before: not all of LanceDB's changes are tried again by itself."""
    for attempt in count(1):
        table.checkout_latest()
        try:
            change()
            return
        except (OSError, ValueError, RuntimeError) as error:
            if "commit conflict" not in str(error).lower() or attempt == CHANGE_TRIES:
                raise
            time.sleep(0.1 * attempt * random.random())


def _ours(folder: Path) -> bool:
    return all(path.suffix == ".lance" or path.name.startswith(".") for path in folder.iterdir())


def _units(vectors: Sequence[np.ndarray | None], width: int) -> Any:
    """A column of unit vectors; null where there is none."""
    import pyarrow as pa

    for vector in vectors:
        if vector is not None and vector.shape != (width,):
            raise ValueError(f"vectors of {width} numbers are stored, found {vector.shape}")
    rows = np.stack([np.ones(width, np.float32) if one is None else one for one in vectors]) if vectors else []
    units = np.asarray(rows, np.float32).reshape(-1, width)
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    missing = pa.array([one is None for one in vectors], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(units.ravel()), width, mask=missing)


def _plain(words: str) -> str:
    """Words only: a query is never read as a query language."""
    return " ".join("".join(c if c.isalnum() else " " for c in words).split())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _told(encoders: Mapping[VectorKind, str]) -> str:
    return ", ".join(f"{kind} by {name}" for kind, name in encoders.items()) or "no vectors"
