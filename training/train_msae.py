"""`hf-msae train`, for `accelerate launch training/train_msae.py` and `torchrun`."""

from hf_msae.cli.train import main

if __name__ == "__main__":
    main()
