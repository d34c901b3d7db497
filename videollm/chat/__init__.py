"""Conversations about clips: `session` (turns), `generation` (tokens and words), `cache` (why turn two is fast)."""
