// node node_runner.mjs NODE_MODULES MODEL IMAGE.bin MASK.bin N H W 3: raw uint8 in, raw uint8 out.
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';

const [modules, model, source, target, ...sizes] = process.argv.slice(2);
const ort = createRequire(`${modules}/`)('onnxruntime-node');
const session = await ort.InferenceSession.create(model);
const image = new ort.Tensor('uint8', new Uint8Array(readFileSync(source)), sizes.map(Number));
const { mask } = await session.run({ image });
writeFileSync(target, mask.data);
