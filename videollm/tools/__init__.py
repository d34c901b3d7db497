"""What a chat can call, and what is useful without one: `narrate` (what happens when, in a video of any length)."""
