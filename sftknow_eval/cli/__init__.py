"""The `sftknow` command: one thin function a verb."""
