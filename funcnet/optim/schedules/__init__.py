"""Schedules: hyperparameters as functions of the step, such as a learning rate that decays.

A schedule is a frozen value: ``schedule(t)`` returns the rate at step t, and step 0 is the first update. An int gives a float, a
0-d tensor gives a 0-d float64 tensor: a schedule can be compiled together with the step that uses it, and mapped over steps with
``torch.func.vmap``. In eager mode both give the same bits. A negative step raises ``ValueError`` if its value can be read.

To write a schedule, subclass ``base.FormulaSchedule`` and define ``rate_at(t)``, or wrap a function in a ``LambdaSchedule``.

torch's schedulers multiply the rate of an optimizer by a factor; schedules here return the rate itself:

    LambdaLR                      lr * LambdaSchedule(f)
    StepLR, MultiStepLR           StepSchedule, MultiStepSchedule
    ConstantLR                    PiecewiseConstantSchedule((factor * lr, lr), (total_iters,))
    LinearLR                      LinearSchedule(start_factor * lr, end_factor * lr, total_iters)
    PolynomialLR, ExponentialLR   PolynomialSchedule, ExponentialSchedule
    CosineAnnealingLR             CosineAnnealingSchedule; CosineSchedule stays at the end
    CosineAnnealingWarmRestarts   CosineRestartsSchedule
    OneCycleLR, CyclicLR          OneCycleSchedule and OneCycleMomentumSchedule, CyclicSchedule
    SequentialLR                  JoinedSchedule
    ChainedScheduler              a * b
    ReduceLROnPlateau             ReduceOnPlateau

The schedules of optax keep their names, followed by ``Schedule``, and take ``start`` instead of ``init_value``.
"""
