"""`hf-msae extract`, for `accelerate launch training/extract_activations.py` and `torchrun`."""

from hf_msae.cli.extract import main

if __name__ == "__main__":
    main()
