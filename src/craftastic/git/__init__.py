"""Review, commit, push and pull of a session's worktree."""
