"""What is measured in a clip before it is edited. A package here is a group of settings and a stage of the same name;
a name in the settings is a module of that package, with a file of settings params/<group>/<name>.yaml, and no other
line changes. The `__init__` of each package says what its modules provide. All of them state

    VERSION   raised by hand when the output changes for equal inputs
    NEEDS     names of the stages that are read besides the frames
    Params    a frozen pydantic model whose field `name` is the module's name; fields that hold a path are marked
              `file`, fields that name weights are marked `weights`
    needs(params)                 optional: the part of NEEDS that these settings read
    weights(params)               optional: {role: reference} of the weights that these settings load
    check_settings(params)        optional: refuse what settings alone tell, before anything runs
    check(params, frames_meta)    optional: refuse what does not fit the clip, before any prior is computed

Modules import torch and the like inside their functions: a plan reads VERSION, NEEDS and Params of all of them.

A new group takes a package or module here, its stage in tasks/<group>.py, its line in the graph (flows/graph.py), in
the groups of settings (flows/settings/compose.py) and in dvc.yaml, and a folder of settings in params/.
"""
