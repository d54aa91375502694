"""The verbs of the command `musax`, one module each.

A verb of a model is a task of `musax.pretrained.TASKS`. Its module declares the options that only
it has, and hands the rest to what verbs share:

  options.py       options that mean the same everywhere: -o, --format, --model, --seed, -q
  outputs.py       the rule of -o FILE|DIR, and which files are written
  capabilities.py  the options that a model has
  verb.py          plan, check, load, work, one line a result, exit status

    def run(args):
        def plan(folder):  # checks, reads nothing
            return plan_outputs(args, expand_inputs(args.inputs))

        def work(model, job):  # reads, runs the model, writes
            result = model.harmonize(load_midi(job.source))
            save_result(result, job.outputs)
            return [f"{len(result.notes)} notes"]

        model = args.model or options.default_model("harmonize")
        return run_verb(args, "harmonize", model=model, plan=plan, work=work)

`musax.cli.COMMANDS` lists the modules.
"""
