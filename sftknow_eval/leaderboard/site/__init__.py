"""The leaderboard's site: static pages, downloads, a comparison of any two rows."""
