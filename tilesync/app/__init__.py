"""Assembly: the only package that puts adapters together. Request in, job run, outcome out."""
