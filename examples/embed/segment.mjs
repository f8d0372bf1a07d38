// node segment.mjs ARTIFACT IMAGE MASK.png: class ids as a greyscale PNG, and how many pixels each class has.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import sharp from 'sharp';

const [artifact, source, target] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(join(artifact, name), 'utf8'));
const { size, value_range: range } = read('preprocess.json');
if (range) throw new Error('this network takes raw values of one channel: window them first, see medical.py');

const { width, height } = await sharp(source).metadata();
let image = sharp(source).removeAlpha().toColourspace('srgb');
if (size) image = image.resize({ height: size[0], width: size[1], fit: 'fill', kernel: 'linear' });
const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });

const session = await ort.InferenceSession.create(join(artifact, 'models', 'model.mask.onnx'));
const tensor = new ort.Tensor('uint8', new Uint8Array(data), [1, info.height, info.width, 3]);
const { mask } = await session.run({ image: tensor });

// Ids, not intensities: the nearest one, never a mean of two.
await sharp(mask.data, { raw: { width: info.width, height: info.height, channels: 1 } })
  .resize({ width, height, fit: 'fill', kernel: 'nearest' })
  .toColourspace('b-w')
  .png()
  .toFile(target);

const counts = new Map();
for (const id of mask.data) counts.set(id, (counts.get(id) ?? 0) + 1);
for (const { id, name } of read('label_map.json').classes) console.log(`${name}\t${counts.get(id) ?? 0}`);
