"""`python -m hf_msae.cli`: the same as `hf-msae`."""

from . import main

if __name__ == "__main__":
    main()
