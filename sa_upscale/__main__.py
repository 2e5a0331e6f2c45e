from sa_upscale.cli import main

main()
