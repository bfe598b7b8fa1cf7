"""The concept explorer as a Space. The variables MSAE_MODEL, MSAE_DATASET and others choose what it shows."""

import signal
import sys

from hf_msae.explorer.housekeeping import own_upload_folder

own_upload_folder()  # before gradio is imported: it reads then where uploads go

from hf_msae.explorer.app import build_demo, launch_options  # noqa: E402

demo = build_demo()

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an exception, so that what visitors sent is deleted
    demo.launch(**launch_options())
