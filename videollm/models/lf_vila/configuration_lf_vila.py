"""The shape of an LF-VILA model: a video encoder whose temporal windows grow with depth, and a BERT in three parts.

Source: Sun et al., "Long-Form Video-Language Pre-Training with Multimodal Temporal Contrastive Learning" (2022),
sections 3 and 4; the defaults are the published model.
"""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.bert.configuration_bert import BertConfig

_BERT_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "tie_word_embeddings": False,
}

Sizes = list[int] | tuple[int, ...]


@strict
class LfVilaVideoConfig(PreTrainedConfig):
    """Shape of the video encoder: groups of windowed blocks, with patches merged 2 x 2 behind some of the groups.

    Attributes:
        image_size: height and width of a frame, pixels. Other sizes are taken, too; they make other numbers of tokens.
        patch_size: height and width of a patch, pixels.
        embed_dim: width of the first group; each merge doubles it.
        depths: blocks of each group.
        num_heads: of each group.
        window_sizes: frames, rows and columns of each group's attention windows.
        merge_after: the groups behind which patches are merged.
        local_window: local features are tapped before the first group with a longer temporal window.
        pool_size: rows and columns that the max-pooling behind the encoder looks at, in steps of one.
        drop_path_rate: share of residual branches dropped in the last block in training, growing linearly from 0.
        as_published: see `LfVilaConfig`, which sets it.
    """

    model_type = "lf_vila_video_model"
    base_config_key = "video_config"

    image_size: Sizes = (192, 320)
    patch_size: Sizes = (8, 8)
    embed_dim: int = 128
    depths: Sizes = (2, 2, 14, 2, 2, 2)
    num_heads: Sizes = (4, 8, 16, 16, 16, 32)
    window_sizes: list[Any] | tuple[Any, ...] = (
        (2, 3, 5), (4, 3, 5), (8, 3, 5), (16, 3, 5), (16, 3, 5), (32, 3, 5),
    )  # fmt: skip
    merge_after: Sizes = (0, 1, 4)
    mlp_ratio: int = 4
    local_window: int = 8
    pool_size: Sizes = (2, 3)
    drop_path_rate: float | int = 0.2
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    as_published: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        groups = len(self.depths)
        if not groups or len(self.num_heads) != groups or len(self.window_sizes) != groups:
            raise ValueError(
                f"depths, num_heads and window_sizes need an entry for each group, found {groups}, "
                f"{len(self.num_heads)} and {len(self.window_sizes)}; make them equally long"
            )
        if any(len(window) != 3 or min(window) < 1 for window in self.window_sizes):
            raise ValueError(f"a window is (frames, rows, columns), each at least 1, found {self.window_sizes}")
        for group in range(groups):
            if self.width(group) % self.num_heads[group]:
                raise ValueError(
                    f"group {group} is {self.width(group)} wide, which {self.num_heads[group]} heads do not divide; "
                    f"change embed_dim or num_heads"
                )

    def width(self, group: int) -> int:
        """Channels of a group; of the output where ``group`` is the number of groups."""
        return self.embed_dim * 2 ** sum(after < group for after in self.merge_after)

    @property
    def hidden_size(self) -> int:
        """Channels of the output."""
        return self.width(len(self.depths))

    @property
    def tap(self) -> int:
        """The group before which local features are tapped; the number of groups where no window is long enough."""
        longer = [group for group, window in enumerate(self.window_sizes) if window[0] > self.local_window]
        return longer[0] if longer else len(self.depths)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output for frames of a size in pixels."""
        rows, columns = -(-height // self.patch_size[0]), -(-width // self.patch_size[1])
        for _ in self.merge_after:
            rows, columns = -(-rows // 2), -(-columns // 2)
        return rows, columns

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of a frame of ``image_size`` behind the pooling."""
        grid = self.grid(self.image_size[0], self.image_size[1])
        rows, columns = (max(size - pool + 1, 1) for size, pool in zip(grid, self.pool_size, strict=True))
        return rows * columns


@strict
class LfVilaConfig(PreTrainedConfig):
    """Shape of every LF-VILA model.

    Attributes:
        video_config: the video encoder.
        text_config: BERT. Its first ``sentence_layers`` read each sentence alone, the next ``paragraph_layers`` all
            sentences of a paragraph, and what is left (none in the first stage of pretraining and in retrieval) words
            and video together.
        max_sentences: rows of the table that tells the sentences of a paragraph apart.
        num_frames: frames that the model was trained with; the clips and the table of frame positions follow from it.
        num_clips: clips of a video, and sentences of a paragraph, in pretraining.
        max_sentence_tokens: every sentence is padded to it; positions within a paragraph count in its multiples.
        temperature: of the global contrastive loss.
        mtc_temperature, mtc_anchors, mtc_candidates, mtc_negatives: of the loss that orders moments in time: its
            temperature, anchors and candidates drawn from each sample, and negatives from other samples.
        mtc_weight, mlm_weight, vtm_weight: of the losses; that of the global one is 1.
        span_weight: of the loss that finds the frames of an answer.
        num_answers: classes of a model that answers or classifies.
        label_smoothing: of the answers' loss.
        local_features: what is compared with single sentences. "tap": clips seen through the groups with short
            temporal windows, as the paper intends; "final": clips at the end of the encoder, as shipped (D1). None:
            "final" where ``as_published``, else "tap".
        masked_score: what is added to the attention to padding; None: the lowest number, as newer versions of the
            library do; -10000 with the version that the published container had (D15). A difference only in sentences
            without words, and only where ``as_published``: otherwise nothing reads them.
        as_published: repeat what is wrong in the published model and what its weights have learned to live with:

            * D1 local features are the final ones (``local_features``).
            * D2 the first negative of another video is of the same video. Corrected: it is of the video before.
            * D3 an anchor's tie is told by its first and last candidate. Corrected: by the two nearest.
            * D4 a batch without a usable anchor has the loss NaN. Corrected: 0.
            * D5 a width that patches do not divide appends empty frames, a height is cut. Corrected: both are padded.
            * D6 windows that shrink in space look up the wrong biases. Corrected: those of their offsets.
            * D7 of 2 or 3 samples, one matched pair is called mismatched. Corrected: it gets another video.
            * D17 the number of frames of questions is fixed. Corrected: the table of their positions is interpolated.
            * D19 classifiers of videos are given unit vectors. Corrected: they are scaled by 1 / ``temperature``.
            * D21 frames in different windows of the last group never meet. Corrected: its odd blocks shift their
              windows by half.
            * The zeros that fill up windows at the edges are attended to, as the paddings of a paragraph's missing
              sentences are averaged into it. Corrected: neither is.

            D8 and D11 (freezing that fails or is undone), D9 (a pooler that no optimiser has), D10, D12 to D14, D16
            and D20 are of programs, not of weights: they are right in either case.
    """

    model_type = "lf_vila"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "video_config": SubConfigSpec(config_class=LfVilaVideoConfig),
        "text_config": SubConfigSpec(config_class=BertConfig, init_kwargs=_BERT_LARGE),
    }

    video_config: Any = None
    text_config: Any = None
    sentence_layers: int = 8
    paragraph_layers: int = 4
    max_sentences: int = 8
    num_frames: int = 32
    num_clips: int = 4
    max_sentence_tokens: int = 50
    temperature: float | int = 0.05
    mtc_temperature: float | int = 0.05
    mtc_anchors: int = 2
    mtc_candidates: int = 2
    mtc_negatives: int = 3
    mtc_weight: float | int = 0.25
    mlm_weight: float | int = 1.0
    vtm_weight: float | int = 10.0
    span_weight: float | int = 1.0
    num_answers: int = 2
    label_smoothing: float | int = 0.0
    local_features: Literal["tap", "final"] | None = None
    masked_score: float | int | None = None
    as_published: bool = False
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # Set here, so that no config can hold two opinions about them.
        self.video_config.as_published = self.as_published
        self.text_config.tie_word_embeddings = self.tie_word_embeddings = False
        if self.local_features is None:
            self.local_features = "final" if self.as_published else "tap"
        if self.cross_layers < 0:
            raise ValueError(
                f"sentence_layers and paragraph_layers are {self.sentence_layers} + {self.paragraph_layers}, but BERT "
                f"has {self.text_config.num_hidden_layers} layers; change one of them"
            )

    @property
    def cross_layers(self) -> int:
        """Layers that read words and video together."""
        return self.text_config.num_hidden_layers - self.sentence_layers - self.paragraph_layers

    @property
    def most_sentences(self) -> int:
        """Sentences that are read at once: as many as are told apart, and have places."""
        return min(self.max_sentences, self.text_config.max_position_embeddings // self.max_sentence_tokens)

    @property
    def frames_per_clip(self) -> int:
        """Frames of a clip."""
        return max(self.num_frames // self.num_clips, 1)
