"""Sound to the mel images that ImageBind's audio trunk takes: resampling, segments, Kaldi filter banks.

Notation: C channels, N samples, S segments, F mel bins, W fbank frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch.nn import functional
from transformers.feature_extraction_utils import FeatureExtractionMixin

from ...clips import Waveform

_FRAME_SECONDS, _SHIFT_SECONDS = 0.025, 0.010
_LOWEST_HZ, _PREEMPHASIS = 20.0, 0.97
# A segment table of so many values is worked on at a time; it bounds the memory of long sounds and big batches.
_CHUNK_VALUES = 2**22
# The same for windows to be transformed; small enough for a processor's cache, which is three times faster.
_FFT_VALUES = 2**19
# Up to so many phases of the resampling filter are computed side by side in one convolution.
_MOST_PHASES = 512


class VideoLlamaFeatureExtractor(FeatureExtractionMixin):
    """Waveforms of any rate and number of channels to normalised log-mel images of fixed-length segments.

    Attributes:
        sampling_rate: what sound is resampled to, Hz.
        segment_seconds: length of a segment; a shorter one is filled with silence at its end.
        num_mel_bins: F.
        target_length: W; missing fbank frames are raw 0 (before normalisation), surplus ones are cut.
        mean, std: of the normalisation ``(x - mean) / std``.
        as_published: hear the first channel only, and subtract each segment's mean in place, so that overlapping
            segments see each other's subtraction. Otherwise the mean of all channels is heard and segments are
            independent.
    """

    model_input_names: ClassVar[list[str]] = ["audio_values"]

    def __init__(
        self,
        sampling_rate: int = 16000,
        segment_seconds: float = 2.0,
        num_mel_bins: int = 128,
        target_length: int = 204,
        mean: float = -4.268,
        std: float = 9.138,
        as_published: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sampling_rate = sampling_rate
        self.segment_seconds = segment_seconds
        self.num_mel_bins = num_mel_bins
        self.target_length = target_length
        self.mean = mean
        self.std = std
        self.as_published = as_published

    @property
    def segment_samples(self) -> int:
        """Samples of one segment."""
        return round(self.segment_seconds * self.sampling_rate)

    def __call__(self, waveforms: Sequence[Waveform], windows_seconds: Sequence[tuple[float, float]]) -> torch.Tensor:
        """Mel images of stretches of sound.

        Args:
            waveforms: pieces of one sound, each with its own start.
            windows_seconds: the (start, end) of each segment; what no piece covers is silence.

        Returns:
            float32 ``(S, 1, F, W)``.

        Raises:
            ValueError: without pieces or windows.
        """
        if not waveforms or not windows_seconds:
            raise ValueError(
                f"sound needs at least one waveform and one window, found {len(waveforms)} and {len(windows_seconds)}"
            )
        pieces = []
        for waveform in waveforms:
            samples = torch.from_numpy(waveform.samples)
            if not self.as_published:
                samples = samples.mean(dim=0, keepdim=True)  # before resampling, which is linear: half the work
            precision = torch.float32 if self.as_published else torch.float64
            samples = resample(samples, waveform.rate_hz, self.sampling_rate, precision=precision)
            # A copy where it is written to below, so that the caller's samples stay as they are.
            pieces.append((waveform.start_seconds, samples.clone() if self.as_published else samples))
        segments = torch.zeros(len(windows_seconds), self.segment_samples)
        for row, (start, end) in zip(segments, windows_seconds, strict=True):
            offset, samples = max(pieces, key=lambda piece: _overlap(piece, start, end, self.sampling_rate))
            first = int((start - offset) * self.sampling_rate)
            last = min(int((end - offset) * self.sampling_rate), first + self.segment_samples)
            cut = samples[:, max(first, 0) : max(last, 0)]
            if cut.shape[1] == 0:
                continue
            if self.as_published:
                cut -= cut.mean()
            else:
                cut = cut - cut.mean()
            begin = max(-first, 0)
            row[begin : begin + cut.shape[1]] = cut[0]
        return self.mel(segments)

    def mel(self, segments: torch.Tensor) -> torch.Tensor:
        """Normalised mel images of ready segments, e.g. a whole batch of training sounds at once.

        Args:
            segments: float ``(S, N)`` at ``sampling_rate``, in [-1, 1].

        Returns:
            float32 ``(S, 1, F, W)``.
        """
        banks = kaldi_fbank(segments, self.sampling_rate, self.num_mel_bins).transpose(1, 2)[..., : self.target_length]
        banks = functional.pad(banks, (0, self.target_length - banks.shape[-1]))
        return ((banks - self.mean) / self.std).unsqueeze(1)


def _overlap(piece: tuple[float, torch.Tensor], start: float, end: float, rate_hz: int) -> float:
    offset, samples = piece
    return min(end, offset + samples.shape[1] / rate_hz) - max(start, offset)


@lru_cache(maxsize=8)
def _resampling_filters(
    source: int, target: int, lowpass_width: int, rolloff: float, precision: torch.dtype
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Taps of each output phase: (width, first input sample of each phase ``(target,)``, weights ``(target, K)``)."""
    cutoff = min(source, target) * rolloff
    width = math.ceil(lowpass_width * source / cutoff)
    phase = torch.arange(target, dtype=torch.int64)
    first = torch.div(phase * source, target, rounding_mode="floor") - width
    taps = first[:, None] + torch.arange(2 * width + 2)
    time = (taps.to(precision) / source - phase.to(precision)[:, None] / target) * cutoff
    time = time.clamp(-lowpass_width, lowpass_width)
    window = torch.cos(time * math.pi / lowpass_width / 2) ** 2
    time = time * math.pi
    weights = torch.where(time == 0, 1.0, torch.sin(time) / time) * window * (cutoff / source)
    return width, first, weights


def resample(
    samples: torch.Tensor,
    from_hz: int,
    to_hz: int,
    lowpass_width: int = 6,
    rolloff: float = 0.99,
    precision: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Windowed-sinc resampling (Hann window), between any two whole rates.

    Args:
        samples: float ``(C, N)``.
        from_hz, to_hz: rates in Hz, positive.
        lowpass_width: zero crossings of the sinc on each side.
        rolloff: cut-off as a share of the lower Nyquist rate.
        precision: in which the taps are computed. The published ones were computed in float32, which is off by 3e-6.

    Returns:
        float ``(C, ceil(N * to_hz / from_hz))``. Equal rates give ``samples`` itself.

    Raises:
        ValueError: for rates that are not positive whole numbers.

    Source: J. O. Smith, "Digital Audio Resampling"; the same kernel as torchaudio's ``sinc_interp_hann``, of which only
    the taps that are not zero are computed, so that rates without a common divisor cost no more than others.
    """
    if from_hz != int(from_hz) or to_hz != int(to_hz) or from_hz <= 0 or to_hz <= 0:
        raise ValueError(f"rates must be positive whole numbers of Hz, found {from_hz} and {to_hz}")
    if from_hz == to_hz:
        return samples
    divisor = math.gcd(int(from_hz), int(to_hz))
    source, target = int(from_hz) // divisor, int(to_hz) // divisor
    width, first, weights = _resampling_filters(source, target, lowpass_width, rolloff, precision)
    wanted = -(-samples.shape[1] * target // source)
    blocks = -(-wanted // target)
    weights = weights.to(samples.dtype)
    taps = weights.shape[1]
    padded = functional.pad(samples, (width, blocks * source + taps - samples.shape[1] + width))
    if target <= _MOST_PHASES and source <= 8 * _MOST_PHASES:
        # Few phases: one convolution, whose kernel holds all phases side by side.
        kernel = torch.zeros(target, int(first[-1]) + width + taps, dtype=weights.dtype)
        for phase in range(target):
            begin = int(first[phase]) + width
            kernel[phase, begin : begin + taps] = weights[phase]
        resampled = functional.conv1d(padded.unsqueeze(1), kernel.unsqueeze(1), stride=source)
        return resampled.transpose(1, 2).flatten(1)[:, :wanted]
    views = padded.unfold(1, taps, 1)
    parts = []
    step = max(1, _CHUNK_VALUES // (taps * samples.shape[0]))
    for begin in range(0, wanted, step):
        index = torch.arange(begin, min(begin + step, wanted))
        phase = index % target
        starts = torch.div(index, target, rounding_mode="floor") * source + first[phase] + width
        parts.append((views[:, starts] * weights[phase]).sum(dim=-1))
    return torch.cat(parts, dim=1)


@lru_cache(maxsize=8)
def _mel_filters(rate_hz: int, fft_size: int, bins: int) -> torch.Tensor:
    """Triangular Kaldi filters, float32 ``(fft_size // 2 + 1, bins)``; the Nyquist bin belongs to none of them."""

    def to_mel(hz: torch.Tensor) -> torch.Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    low, high = to_mel(torch.tensor([_LOWEST_HZ, rate_hz / 2], dtype=torch.float64))
    step = (high - low) / (bins + 1)
    left = low + torch.arange(bins, dtype=torch.float64) * step
    frequency = to_mel(torch.arange(fft_size // 2, dtype=torch.float64) * rate_hz / fft_size)[:, None]
    rising, falling = (frequency - left) / step, (left + 2 * step - frequency) / step
    filters = torch.minimum(rising, falling).clamp(min=0)
    return functional.pad(filters, (0, 0, 0, 1)).float()


def kaldi_fbank(samples: torch.Tensor, rate_hz: int = 16000, num_mel_bins: int = 128) -> torch.Tensor:
    """Kaldi log-mel filter banks of many sounds of one length.

    Windows of 25 ms every 10 ms (Hann), no dither, DC removed and pre-emphasis 0.97 within a window, power spectrum,
    triangular filters from 20 Hz to Nyquist, natural logarithm with a floor of float32 epsilon.

    Args:
        samples: float ``(S, N)``, at least one window long.

    Returns:
        float32 ``(S, W, F)`` with ``W = 1 + (N - window) // shift``.

    Raises:
        ValueError: if the sound is shorter than one window.

    Source: Kaldi ``compute-fbank-feats`` with the settings of ImageBind (Girdhar et al. 2023, appendix).
    """
    window, shift = round(_FRAME_SECONDS * rate_hz), round(_SHIFT_SECONDS * rate_hz)
    if samples.shape[1] < window:
        raise ValueError(f"a filter bank needs at least {window} samples, found {samples.shape[1]}; pad with silence")
    fft_size = 2 ** math.ceil(math.log2(window))
    hann = torch.hann_window(window, periodic=False)
    filters = _mel_filters(rate_hz, fft_size, num_mel_bins)
    floor = torch.finfo(torch.float32).eps
    frames_each = 1 + (samples.shape[1] - window) // shift
    step = max(1, _FFT_VALUES // (frames_each * fft_size))
    parts = []
    for group in samples.float().split(step):
        frames = group.unfold(1, window, shift)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - _PREEMPHASIS * before) * hann
        power = torch.view_as_real(torch.fft.rfft(frames, n=fft_size)).square().sum(dim=-1)
        parts.append((power @ filters).clamp(min=floor).log())
    return torch.cat(parts)
