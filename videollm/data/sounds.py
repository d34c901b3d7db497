"""Samples of a scene of the world: `synthesise(scene, rate_hz)`."""

from __future__ import annotations

import numpy as np

from videollm.data.world import Scene, SoundEvent

BEEP_SECONDS, BEEP_PERIOD_SECONDS = 0.14, 0.32


def beep_times(event: SoundEvent) -> np.ndarray:
    """Start of each beep or click, seconds."""
    return event.start_seconds + BEEP_PERIOD_SECONDS * np.arange(event.count)


def synthesise(scene: Scene, rate_hz: int | None = None, channels: int | None = None) -> np.ndarray | None:
    """The sound of a scene, float32 ``(C, N)`` in [-1, 1], or None where the file has no sound track.

    The loudness is that of the sounding parts: their root mean square is ``scene.gain_db`` below full scale.
    """
    if not scene.has_sound_track:
        return None
    rate = rate_hz or scene.rate_hz
    count = max(1, round(scene.duration_seconds * rate))
    rng = np.random.default_rng([scene.seed, 13])
    mono = rng.standard_normal(count) * 10 ** (scene.floor_db / 20)
    for event in scene.sounds:
        wave, active = _event(event, rate)
        level = np.sqrt(np.mean(wave[active] ** 2)) + 1e-12
        wave *= 10 ** (scene.gain_db / 20) / level
        start = round(event.start_seconds * rate)
        stop = min(count, start + len(wave))
        mono[start:stop] += wave[: stop - start]
    wanted = channels or scene.channels
    if wanted == 1:
        samples = mono[None]
    else:
        balance = rng.uniform(0.7, 1.0, 2)
        samples = np.stack([mono * balance[0], mono * balance[1]]) / balance.mean()
    return np.clip(samples, -1, 1).astype(np.float32)


def _ramp(count: int, rate: int, seconds: float = 0.008) -> np.ndarray:
    """An envelope with short slopes, so that nothing clicks."""
    slope = max(1, min(count // 2, round(seconds * rate)))
    envelope = np.ones(count)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(slope) / slope)
    envelope[:slope] *= rise
    envelope[count - slope :] *= rise[::-1]
    return envelope


def _event(event: SoundEvent, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """(samples, mask of the sounding ones) of one event."""
    rng = np.random.default_rng(event.seed)
    length = max(1, round((event.end_seconds - event.start_seconds) * rate))
    t = np.arange(length) / rate
    if event.kind in ("beeps", "clicks"):
        period = round(BEEP_PERIOD_SECONDS * rate)
        one = round((BEEP_SECONDS if event.kind == "beeps" else 0.03) * rate)
        total = period * (event.count - 1) + one
        wave, active = np.zeros(total), np.zeros(total, bool)
        tone = np.arange(one) / rate
        pitch = 900 + 1300 * event.pitch_hz
        for index in range(event.count):
            at = slice(index * period, index * period + one)
            if event.kind == "beeps":
                wave[at] = np.sin(2 * np.pi * pitch * tone) * _ramp(one, rate)
            else:
                wave[at] = rng.standard_normal(one) * np.exp(-tone * 120)
            active[at] = True
        return wave, active
    if event.kind == "hum":
        base = 90 + 130 * event.pitch_hz
        wave = sum(np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6)) / k for k in (1, 2, 3))
    elif event.kind == "noise":
        wave = rng.standard_normal(length)
        if event.pitch_hz > 0.5:  # darker
            wave = np.convolve(wave, np.ones(4) / 4, mode="same")
    elif event.kind in ("rising tone", "falling tone"):
        low, high = 250 + 150 * event.pitch_hz, 1300 + 700 * event.pitch_hz
        share = t / max(t[-1], 1e-6)
        if event.kind == "falling tone":
            share = 1 - share
        frequency = low * (high / low) ** share
        phase = 2 * np.pi * np.cumsum(frequency) / rate
        wave = np.sin(phase) + 0.3 * np.sin(2 * phase)
    elif event.kind == "music":
        wave = np.zeros(length)
        note = 0.16 + 0.12 * event.pitch_hz
        root = 220 * 2 ** rng.uniform(0, 1)
        steps = (0, 2, 4, 5, 7, 9, 11, 12)
        for index in range(int(np.ceil(length / rate / note))):
            a, b = round(index * note * rate), min(length, round((index + 1) * note * rate))
            if b <= a:
                break
            s = np.arange(b - a) / rate
            pitch = root * 2 ** (steps[int(rng.integers(8))] / 12)
            decay = np.exp(-s * 2.5)
            for k, weight in ((1, 1.0), (2, 0.5), (3, 0.3)):
                wave[a:b] += weight * np.sin(2 * np.pi * pitch * k * s) * decay
                wave[a:b] += 0.6 * weight * np.sin(2 * np.pi * pitch * 1.26 * k * s) * decay
            wave[a:b] *= _ramp(b - a, rate, 0.004)
    else:  # speech-like: a buzzing source through moving resonances, in syllables
        base = 95 + 120 * event.pitch_hz
        drift = np.interp(t, np.linspace(0, t[-1] + 1e-6, 12), rng.uniform(0.85, 1.2, 12))
        phase = 2 * np.pi * np.cumsum(base * drift) / rate
        wave = np.zeros(length)
        syllables = np.interp(
            t, np.arange(0, t[-1] + 0.4, 0.12), rng.uniform(0.15, 1.0, len(np.arange(0, t[-1] + 0.4, 0.12)))
        )
        knots = np.linspace(0, t[-1] + 1e-6, max(3, int(t[-1] / 0.15)))
        formants = [np.interp(t, knots, rng.uniform(low, high, len(knots))) for low, high in ((300, 900), (900, 2300))]
        for k in range(1, 28):
            frequency = base * drift * k
            gain = sum(np.exp(-(((frequency - f) / 160.0) ** 2)) for f in formants) + 0.02
            wave += gain * np.sin(k * phase) * (frequency < rate / 2)
        wave = wave * syllables + 0.02 * rng.standard_normal(length)
    return wave * _ramp(length, rate, 0.015), np.ones(length, bool)
