"""The concept explorer as a Space. The variables MSAE_MODEL, MSAE_DATASET and others choose what it shows."""

from hf_msae.explorer.app import build_demo, launch_options

demo = build_demo()

if __name__ == "__main__":
    demo.launch(**launch_options())
