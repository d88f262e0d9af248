"""What 00_explore computes, draws and asks for."""
