"""The published files: what each is, what it needs, its licence, where it comes from, and its checksum.

Nobody publishes the checksums of most of these files, so they are filled at first use: after the first conversion that
a file went through whole, and compared ever after. They are kept in the user's cache, not in the package.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConversionError

_LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/"
_HUB = "https://huggingface.co/"
_SERIES = "DAMO-NLP-SG/Video-LLaMA-Series"
_RESEARCH = "research only, not commercial (Video-LLaMA's terms)"
_VISION = ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth")


@dataclass(frozen=True)
class PublishedFile:
    """A published file of weights.

    Attributes:
        name: its file name.
        family: the published model it belongs to.
        kind: what it holds, a key of ``WHAT`` of the family's module.
        needs: what must be given with it: names of other files, and the decoder in words.
        size_bytes: about its size.
        licence: of the weights.
        source: its address, or its repository on the hub.
        prompt: the chat template that the branch was trained with; None where it does not say.
        md5_begins: the first digits of its MD5, where they are published; "" otherwise.
    """

    name: str
    family: str
    kind: str
    needs: tuple[str, ...]
    size_bytes: int
    licence: str
    source: str
    prompt: str | None = None
    md5_begins: str = ""

    @property
    def address(self) -> str:
        """Where a person fetches it."""
        return self.source if "://" in self.source else f"{_HUB}{self.source}"


def _branch(name: str, kind: str, decoder: str, prompt: str, size_bytes: int, repo: str = _SERIES) -> PublishedFile:
    sound = ("imagebind_huge.pth", "a video branch for the same decoder") if kind == "audio_branch" else ()
    needs = (*_VISION, *sound, decoder)
    return PublishedFile(name, "video-llama", kind, needs, size_bytes, _RESEARCH, repo, prompt)


def _series() -> tuple[PublishedFile, ...]:
    vicuna_7b, vicuna_13b = "Vicuna-7B v0", "Vicuna-13B v0"
    video: list[tuple[str, str, int]] = [
        ("pretrain_vicuna7b-v2.pth", vicuna_7b, 265_200_000),
        ("finetune-vicuna7b-v2.pth", vicuna_7b, 265_200_000),
        ("pretrain-vicuna13b.pth", vicuna_13b, 274_700_000),
        ("finetune-vicuna13b-v2.pth", vicuna_13b, 274_700_000),
        ("pretrain-ziya13b-zh.pth", "Ziya-LLaMA-13B-v1", 274_700_000),
        ("finetune-ziya13b-zh.pth", "Ziya-LLaMA-13B-v1", 274_700_000),
        ("pretrain-billa7b-zh.pth", "BiLLa-7B-SFT", 265_200_000),
        ("finetune-billa7b-zh.pth", "BiLLa-7B-SFT", 265_200_000),
    ]
    audio = ("pretrain_vicuna7b_audiobranch.pth", "finetune_vicuna7b_audiobranch.pth")
    return (
        *(_branch(name, "video_branch", decoder, "vicuna_v0", size) for name, decoder, size in video),
        *(_branch(name, "audio_branch", vicuna_7b, "vicuna_v0", 274_300_000) for name in audio),
    )


def _llama_2() -> tuple[PublishedFile, ...]:
    files: list[PublishedFile] = []
    for size, video_bytes, audio_bytes in (("7B", 265_200_000, 274_300_000), ("13B", 274_700_000, 283_700_000)):
        for stage in ("Pretrained", "Finetuned"):
            repo, decoder = f"DAMO-NLP-SG/Video-LLaMA-2-{size}-{stage}", f"Llama-2-{size}-chat"
            inner = f"LLaMA_2_{size}_{stage}.pth"
            files.append(_branch(f"VL_{inner}", "video_branch", decoder, "llama_2_chat", video_bytes, repo))
            files.append(_branch(f"AL_{inner}", "audio_branch", decoder, "llama_2_chat", audio_bytes, repo))
    return tuple(files)


def _lavila() -> tuple[PublishedFile, ...]:
    ego4d, mir, charades = "dual_encoders/ego4d", "dual_encoders/ek100_mir", "dual_encoders/charades_ego"
    cls, egtea = "dual_encoders/ek100_cls", "dual_encoders/egtea"
    base, large = "clip_openai_timesformer_base", "clip_openai_timesformer_large"
    small, big, huge = 711_000_000, 2_110_000_000, 9_900_000_000
    files: list[tuple[str, str, str, str, int]] = [
        ("dual_encoder", ego4d, f"{base}.baseline.ep_0003.pth", "dbcc4d", small),
        ("dual_encoder", ego4d, f"{large}_336px_distilbert_base.baseline.ep_0003.pth", "5c69b8", 1_885_000_000),
        ("dual_encoder", ego4d, f"{base}.narrator_rephraser.ep_0001.md5sum_02dbb9.pth", "02dbb9", small),
        ("dual_encoder", ego4d, f"{base}.narrator_rephraser.ep_0005.md5sum_d73a9c.pth", "d73a9c", small),
        ("dual_encoder", ego4d, f"{large}.narrator_rephraser.ep_0001.md5sum_9a25de.pth", "9a25de", big),
        ("dual_encoder", ego4d, f"{large}.narrator_rephraser.ep_0003.md5sum_c89337.pth", "c89337", big),
        ("dual_encoder", ego4d, "egovlp_epo1_converted_f16.md5sum_7a3d3b.pth", "7a3d3b", 362_000_000),
        ("dual_encoder", ego4d, "egovlp_converted_f16.md5sum_c33363.pth", "c33363", 362_000_000),
        ("dual_encoder", mir, f"{base}.ft_ek100_mir.ep_0085.md5sum_c67d95.pth", "c67d95", small),
        ("dual_encoder", mir, f"{large}.ft_ek100_mir.ep_0095.md5sum_bd508b.pth", "bd508b", big),
        ("dual_encoder", charades, f"{base}.ft_charades_ego.ep_0005.md5sum_39bf4b.pth", "39bf4b", small),
        ("dual_encoder", charades, f"{large}.ft_charades_ego.ep_0003.md5sum_9448b2.pth", "9448b2", big),
        ("classifier", cls, f"{base}.ft_ek100_cls.single_head.ep_0100.md5sum_e8aa0c.pth", "e8aa0c", 470_000_000),
        ("classifier", cls, f"{base}.ft_ek100_cls.ep_0100.md5sum_4e3575.pth", "4e3575", 470_000_000),
        ("classifier", cls, f"{large}.ft_ek100_cls.ep_0090.md5sum_4a2509.pth", "4a2509", 1_630_000_000),
        ("classifier", egtea, f"{base}.ft_egtea.ep_0090.md5sum_3b1faf.pth", "3b1faf", 457_000_000),
        ("classifier", egtea, f"{large}.ft_egtea.ep_0095.md5sum_a5ba17.pth", "a5ba17", 1_620_000_000),
        (
            "narrator", "narrator",
            "vclm_openai_timesformer_base_gpt2_base.pt_ego4d.jobid_319630.ep_0002.md5sum_68a71f.pth", "68a71f",
            1_480_000_000,
        ),
        (
            "narrator", "narrator",
            "vclm_openai_timesformer_large_336px_gpt2_xl.pt_ego4d.jobid_246897.ep_0003.md5sum_443263.pth", "443263",
            huge,
        ),
        (
            "narrator", "narrator/htm_aa", "vclm_openai_timesformer_large_gpt2_xl.pt_htm.jobid_341080.ep_0001.pth", "",
            10_900_000_000,
        ),
    ]  # fmt: skip
    words = {f"{large}_336px_distilbert_base.baseline.ep_0003.pth", *(f[2] for f in files if f[2].startswith("egovlp"))}
    return tuple(
        PublishedFile(
            name, "lavila", kind, ("vocab.txt of distilbert-base-uncased",) if name in words else (), size_bytes, "MIT",
            f"https://dl.fbaipublicfiles.com/lavila/checkpoints/{folder}/{name}", md5_begins=md5,
        )
        for kind, folder, name, md5, size_bytes in files
    )  # fmt: skip


FILES: Mapping[str, PublishedFile] = {
    file.name: file
    for file in (
        PublishedFile("eva_vit_g.pth", "video-llama", "eva_vit", (), 2_000_000_000, "MIT", f"{_LAVIS}eva_vit_g.pth"),
        PublishedFile(
            "blip2_pretrained_flant5xxl.pth", "video-llama", "blip2", (), 430_000_000, "BSD-3-Clause",
            f"{_LAVIS}blip2_pretrained_flant5xxl.pth",
        ),
        PublishedFile(
            "imagebind_huge.pth", "video-llama", "imagebind", (), 4_800_000_000, "CC BY-NC-SA 4.0 (not commercial)",
            "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
        ),
        *_series(),
        *_llama_2(),
        *_lavila(),
        PublishedFile(
            "swin_base_patch4_window12_384_22k.pth", "lf-vila", "swin", ("the folder of bert-large-uncased",),
            450_000_000, "MIT",
            "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_window12_384_22k.pth",
        ),
    )
}  # fmt: skip
"""The published files by name. Sizes are estimates: nothing is refused for its size."""


@dataclass(frozen=True)
class Download:
    """A published model that can be fetched.

    Attributes:
        repo: on the hub.
        files: the files wanted from it; empty: a bundle, wanted whole.
        decoder: what has to be given by hand as well; None where the bundle has it.
    """

    repo: str
    files: tuple[str, ...] = ()
    decoder: str | None = None


DOWNLOADS: Mapping[str, Download] = {
    "vicuna-7b": Download(
        _SERIES, ("finetune-vicuna7b-v2.pth", "finetune_vicuna7b_audiobranch.pth"), "the folder of Vicuna-7B v0"
    ),
    "vicuna-13b": Download(_SERIES, ("finetune-vicuna13b-v2.pth",), "the folder of Vicuna-13B v0"),
    "llama-2-7b": Download("DAMO-NLP-SG/Video-LLaMA-2-7B-Finetuned"),
    "llama-2-13b": Download("DAMO-NLP-SG/Video-LLaMA-2-13B-Finetuned"),
    "llama-2-7b-pretrained": Download("DAMO-NLP-SG/Video-LLaMA-2-7B-Pretrained"),
    "llama-2-13b-pretrained": Download("DAMO-NLP-SG/Video-LLaMA-2-13B-Pretrained"),
}
"""What ``--download`` knows. All of them also take the two files of the eye."""

_BUNDLE_FILES = ["*.pth", "*.json", "*.model", "*.bin", "*.safetensors"]


def cache_folder() -> Path:
    """Where downloads and checksums are kept: ``$VIDEOLLM_CACHE``, by default ``videollm`` in the user's cache."""
    own = os.environ.get("VIDEOLLM_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "videollm"


def fetch(name: str, say: Callable[[str], None]) -> list[Path]:
    """Download a published model, through the cache of `huggingface_hub`; what is there already is not fetched again.

    Args:
        name: a key of `DOWNLOADS`.
        say: takes a line for the user: where there is no network, each file to fetch by hand.

    Returns:
        files and folders to convert.

    Raises:
        ConversionError: for an unknown name, or where something cannot be fetched.
    """
    if name not in DOWNLOADS:
        raise ConversionError(f"no download {name!r}; there are {', '.join(DOWNLOADS)}")
    wanted = DOWNLOADS[name]
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # each attempt to reach the network would be told
    eye = [FILES[file] for file in _VISION]
    ear = [FILES["imagebind_huge.pth"]] if any(FILES[file].kind == "audio_branch" for file in wanted.files) else []
    try:
        if wanted.files:
            paths = [Path(hf_hub_download(wanted.repo, file)) for file in wanted.files]
        else:
            paths = [Path(snapshot_download(wanted.repo, allow_patterns=_BUNDLE_FILES))]
        paths += [_fetch_address(file, offline=constants.HF_HUB_OFFLINE) for file in (*eye, *ear)]
    except OSError as error:
        say(f"fetch by hand for {name}:")
        if wanted.files:
            for file in wanted.files:
                say(f"  {_HUB}{wanted.repo}/resolve/main/{file}   {_gigabytes(FILES[file].size_bytes)}")
        else:
            say(f"  {_HUB}{wanted.repo}   (all files)")
        for file in (*eye, *ear):
            say(f"  {file.address}   {_gigabytes(file.size_bytes)}")
        if wanted.decoder:
            say(f"  {wanted.decoder}")
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(
            f"{name} could not be fetched ({reason}); fetch the files named above by hand, then give them: videollm "
            f"convert video-llama FILES... --out DIR"
        ) from error
    return paths


def _fetch_address(file: PublishedFile, offline: bool) -> Path:
    place = cache_folder() / "files" / file.name
    if place.is_file():
        return place
    if offline:
        raise ConnectionError(f"{file.address} is wanted, but HF_HUB_OFFLINE is set")
    import torch.hub

    place.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(file.address, str(place))  # appears whole
    return place


def table() -> list[str]:
    """The published files as lines of text."""
    known = Checksums()
    lines = []
    for file in FILES.values():
        digest = known.of(file.name)
        lines.append(f"{file.name}   {file.family}, {file.kind}, about {_gigabytes(file.size_bytes)}")
        lines.append(f"    licence: {file.licence}")
        lines.append(f"    from: {file.address}")
        if file.needs:
            lines.append(f"    needs: {', '.join(file.needs)}")
        lines.append(f"    sha256: {digest or 'filled at first use'}")
    return lines


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


class Checksums:
    """SHA-256 of published files as they were at first use, by file name.

    Attributes:
        path: the file that keeps them.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "checksums.json"
        self._known: dict[str, str] = {}
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise ConversionError(f"the checksums in {self.path} cannot be read ({error}); remove that file") from error
        if not isinstance(stored, dict):
            raise ConversionError(f"the checksums in {self.path} are no table; remove that file")
        self._known = {str(name): str(digest) for name, digest in stored.items()}

    def of(self, name: str) -> str | None:
        """The known checksum of a published file, in hex; None before its first use."""
        return self._known.get(name)

    def check(self, path: Path) -> str | None:
        """Compute the checksum of a file and compare it with the one known.

        Returns:
            the checksum in hex; None for a file that is not in the table of published files.

        Raises:
            ConversionError: if the file is not what it was at its first use.
        """
        if path.name not in FILES:
            return None
        begins = FILES[path.name].md5_begins
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            published = begins and hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if not published.startswith(begins):
            raise ConversionError(
                f"{path} is not the published {path.name} (its MD5 begins with {published[:6]}, not {begins}); "
                f"download it again, or, if it is another model, give it another name"
            )
        if self._known.get(path.name, digest) != digest:
            raise ConversionError(
                f"{path} is not the {path.name} that was used first (sha256 {digest[:12]}..., then "
                f"{self._known[path.name][:12]}...); download it again, or, if it is new on purpose, remove its line "
                f"from {self.path}"
            )
        return digest

    def remember(self, digests: Iterable[tuple[str, str]]) -> None:
        """Keep the checksums of files that were used, name and digest.

        Raises:
            OSError: if they cannot be written; the old ones are then as they were.
        """
        known = self._known | dict(digests)
        if known == self._known:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=self.path.parent, prefix=".checksums", delete=False
        ) as file:
            json.dump(known, file, indent=1, sort_keys=True)
        os.replace(file.name, self.path)
        self._known = known
