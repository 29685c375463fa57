#![cfg_attr(fuzzing, no_main)]

corinth_fuzz::program!(corinth_fuzz::flow_frames);
