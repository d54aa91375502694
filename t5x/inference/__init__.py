"""What `t5x.eval`, `t5x.infer` and `t5x.export` are made of: parameters, examples, output files."""
