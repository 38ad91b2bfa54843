"""The console command `yolox-serve`, above the server and the training package."""
