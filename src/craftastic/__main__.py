"""`python -m craftastic` is the `craftastic` command."""

from craftastic.cli.main import main

if __name__ == "__main__":
    main()
