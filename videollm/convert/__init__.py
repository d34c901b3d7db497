"""Published checkpoints become ordinary folders: the only room that knows a foreign file or an old key name."""
