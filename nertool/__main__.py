"""`python -m nertool`, for where the command is not on the path."""

from nertool.cli.main import main

if __name__ == "__main__":
    main()
