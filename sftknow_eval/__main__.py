"""`python -m sftknow_eval` is the `sftknow` command."""

from sftknow_eval.cli.app import main

if __name__ == "__main__":
    main()
