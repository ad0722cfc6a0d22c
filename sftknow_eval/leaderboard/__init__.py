"""The leaderboard: rows that anybody can submit and everybody can recompute."""
