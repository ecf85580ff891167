"""Lets `python -m skipserve_client` stand for the `skipserve` command."""

from skipserve_client.cli import main

if __name__ == "__main__":
    main()
