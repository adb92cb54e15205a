"""`python -m atomo_gql`."""

from atomo_gql.cli import main

if __name__ == "__main__":
    main()
