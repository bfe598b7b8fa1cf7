"""`hf-msae evaluate`, for `accelerate launch training/evaluate_msae.py` and `torchrun`."""

from hf_msae.cli.evaluate import main

if __name__ == "__main__":
    main()
