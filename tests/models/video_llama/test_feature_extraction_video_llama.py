"""Sound to mel: resampling between any rates, Kaldi filter banks, windows over pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from videollm.clips import Waveform
from videollm.models.video_llama import VideoLlamaFeatureExtractor, feature_extraction_video_llama
from videollm.models.video_llama.feature_extraction_video_llama import kaldi_fbank, resample


def tone(hz: float, rate_hz: int, seconds: float) -> torch.Tensor:
    at = torch.arange(round(rate_hz * seconds), dtype=torch.float64) / rate_hz
    return (0.5 * torch.sin(2 * torch.pi * hz * at)).float()[None]


@pytest.mark.parametrize("rate_hz", [8000, 11025, 12345, 22050, 32000, 44099, 44100, 48000, 96000, 192000])
def test_a_tone_stays_the_tone(rate_hz: int) -> None:
    found = resample(tone(1000, rate_hz, 1.0), rate_hz, 16000)
    assert found.shape == (1, 16000)
    # The edges see the silence around; between them the filter's ripple is under a thousandth.
    torch.testing.assert_close(found[:, 200:-200], tone(1000, 16000, 1.0)[:, 200:-200], atol=1e-3, rtol=0)


@pytest.mark.parametrize("rate_hz", [44100, 48000, 96000])
def test_what_does_not_fit_the_new_rate_is_gone(rate_hz: int) -> None:
    # Hann-windowed with 6 crossings: a soft edge, but an octave above it nothing is left to fold back.
    assert resample(tone(15000, rate_hz, 0.5), rate_hz, 16000)[:, 200:-200].abs().max() < 2e-3


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (48000, 16000), (11025, 16000), (16000, 22050)])
def test_both_ways_of_computing_agree(source: int, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    by_convolution = resample(samples, source, target)
    monkeypatch.setattr(feature_extraction_video_llama, "_CHUNK_VALUES", 2**16)
    monkeypatch.setattr(feature_extraction_video_llama, "_MOST_PHASES", 0)
    torch.testing.assert_close(resample(samples, source, target), by_convolution, atol=2e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 17, 440, 441, 442])
@pytest.mark.parametrize("rate_hz", [44100, 44099, 8000])
def test_lengths_are_rounded_up(length: int, rate_hz: int) -> None:
    found = resample(torch.ones(1, length), rate_hz, 16000)
    assert found.shape[1] == -(-length * 16000 // rate_hz) and torch.isfinite(found).all()


def test_equal_rates_change_nothing() -> None:
    samples = torch.randn(2, 100)
    assert resample(samples, 16000, 16000) is samples
    with pytest.raises(ValueError, match="positive whole numbers of Hz, found 0 and 16000"):
        resample(samples, 0, 16000)


@pytest.mark.filterwarnings("ignore:At least one mel filter:UserWarning")
@pytest.mark.parametrize("bins", [64, 128])
def test_filter_banks_are_those_of_the_library(bins: int) -> None:
    """Against transformers.audio_utils with Kaldi's settings, on noise, tones, silence and clicks."""
    generator = torch.Generator().manual_seed(0)
    click = torch.zeros(1, 8000)
    click[0, 4000] = 1.0
    noise = torch.randn(2, 8000, generator=generator) * 0.1
    # No loud pure high tone: beside it, the bins that it leaves empty are float32 rounding, here as in Kaldi itself.
    signals = torch.cat([noise, tone(440, 16000, 0.5), click, torch.zeros(1, 8000), noise[:1] * 1e-3 + 0.3])
    # Of 128 bins the lowest are narrower than the steps of the spectrum; the library warns about them.
    filters = mel_filter_bank(257, bins, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True)
    found = kaldi_fbank(signals, 16000, bins)
    assert found.shape == (6, 48, bins)
    for row, signal in zip(found, signals, strict=True):
        wanted = spectrogram(
            signal.double().numpy(),
            window_function(400, "hann", periodic=False),
            frame_length=400,
            hop_length=160,
            fft_length=512,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=filters,
            log_mel="log",
            mel_floor=torch.finfo(torch.float32).eps,
            remove_dc_offset=True,
        ).T
        difference = np.abs(row.numpy() - wanted)
        assert difference.mean() < 2e-5 and difference.max() < 2e-3


def test_filter_banks_of_a_batch_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = torch.randn(9, 3200) * 0.1
    together = kaldi_fbank(segments)
    monkeypatch.setattr(feature_extraction_video_llama, "_FFT_VALUES", 1)
    torch.testing.assert_close(kaldi_fbank(segments), together, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least 400 samples, found 399"):
        kaldi_fbank(torch.zeros(1, 399))


@pytest.fixture
def extractor() -> VideoLlamaFeatureExtractor:
    return VideoLlamaFeatureExtractor(segment_seconds=0.5, num_mel_bins=32, target_length=48)


def test_segments_are_cut_from_the_piece_that_holds_them(extractor: VideoLlamaFeatureExtractor) -> None:
    rng = np.random.default_rng(0)
    samples = (rng.normal(size=(1, 64000)) * 0.1).astype(np.float32)
    windows = [(0.25, 0.75), (3.0, 3.5)]
    whole = extractor([Waveform(samples, 16000)], windows)
    pieces = [Waveform(samples[:, 4000:16000], 16000, 0.25), Waveform(samples[:, 40000:], 16000, 2.5)]
    assert whole.shape == (2, 1, 32, 48)
    torch.testing.assert_close(extractor(pieces, windows), whole)
    assert (whole[0] - whole[1]).abs().max() > 0.1


def test_a_short_sound_is_filled_with_silence(extractor: VideoLlamaFeatureExtractor) -> None:
    samples = (np.random.default_rng(0).normal(size=(1, 4000)) * 0.1).astype(np.float32)
    (found,) = extractor([Waveform(samples, 16000)], [(0.0, 0.5)])
    silence = (np.log(np.finfo(np.float32).eps) + 4.268) / 9.138
    torch.testing.assert_close(found[0, :, 26:], torch.full_like(found[0, :, 26:], silence), atol=1e-5, rtol=0)
    assert (found[0, :, :20] - silence).abs().min() > 0.1
    # A window of which the first half lies before the sound begins.
    (late,) = extractor([Waveform(samples, 16000, 10.0)], [(9.75, 10.25)])
    torch.testing.assert_close(late[0, :, :22], torch.full_like(late[0, :, :22], silence), atol=1e-5, rtol=0)
    assert (late[0, :, 28:] - silence).abs().min() > 0.1
    (nowhere,) = extractor([Waveform(samples, 16000)], [(50.0, 50.5)])
    torch.testing.assert_close(nowhere, torch.full_like(nowhere, silence), atol=1e-5, rtol=0)


def test_both_channels_are_heard_unless_as_published(extractor: VideoLlamaFeatureExtractor) -> None:
    samples = np.zeros((2, 8000), np.float32)
    samples[1] = tone(1000, 16000, 0.5).numpy()
    windows = [(0.0, 0.5)]
    both = extractor([Waveform(samples, 16000)], windows)
    published = VideoLlamaFeatureExtractor(segment_seconds=0.5, num_mel_bins=32, target_length=48, as_published=True)
    assert (both - extractor([Waveform(samples * 0, 16000)], windows)).abs().max() > 0.5
    # The published model hears the first channel only.
    left = published([Waveform(samples, 16000)], windows)
    torch.testing.assert_close(left, published([Waveform(samples * 0, 16000)], windows))


def test_overlapping_segments_are_independent_unless_as_published() -> None:
    samples = (np.random.default_rng(0).normal(size=(1, 16000)) * 0.01).astype(np.float32)
    samples[:, :4000] += 0.5
    alone, both = [(0.25, 0.75)], [(0.0, 0.5), (0.25, 0.75)]
    before = samples.copy()
    for published in (False, True):
        extractor = VideoLlamaFeatureExtractor(segment_seconds=0.5, as_published=published)
        waveform = Waveform(samples, 16000)
        same = torch.equal(extractor([waveform], alone)[0], extractor([waveform], both)[1])
        assert same is not published
    np.testing.assert_array_equal(samples, before)


def test_missing_fbank_frames_are_raw_zero_and_surplus_ones_are_cut() -> None:
    segments = torch.randn(1, 8000)
    wide = VideoLlamaFeatureExtractor(segment_seconds=0.5, target_length=50).mel(segments)
    torch.testing.assert_close(wide[..., 48:], torch.full((1, 1, 128, 2), 4.268 / 9.138))
    narrow = VideoLlamaFeatureExtractor(segment_seconds=0.5, target_length=40).mel(segments)
    assert torch.equal(narrow, wide[..., :40])


def test_nothing_to_hear_is_refused(extractor: VideoLlamaFeatureExtractor) -> None:
    with pytest.raises(ValueError, match="at least one waveform and one window, found 0 and 1"):
        extractor([], [(0.0, 0.5)])
