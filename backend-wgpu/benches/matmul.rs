//! Matrix products by each kernel that the adapter has: squares, and the linear layers of preset `laptop` (2048 tokens, hidden 128).
//!
//!     cargo bench -p backend-wgpu --bench matmul [-- [words that a line must hold …] [--kernel NAME | --rule] [--dtype f32|bf16|f16] [--seconds 2]]
//!
//! Two rates: by the clock, and for each two seconds of processor time that the process took, which is what counts on a software adapter: it does not
//! change with what else the machine does, and says what two cores alone would reach.

use std::time::{Duration, Instant};

use backend::ops::{Cast, Matmul};
use backend::philox::Stream;
use backend::{Backend, Class, DType, Result, Shape};
use backend_wgpu::{Choice, WgpuBackend};

/// Name; m, n, k; whether a and b are transposed.
const CASES: [(&str, [usize; 3], bool, bool); 15] = [
    ("512 nn", [512, 512, 512], false, false),
    ("1024 nn", [1024, 1024, 1024], false, false),
    ("1024 nt", [1024, 1024, 1024], false, true),
    ("1024 tn", [1024, 1024, 1024], true, false),
    ("1023 nn, no vectors", [1023, 1023, 1023], false, false),
    ("laptop qkv forward", [2048, 384, 128], false, true),
    ("laptop qkv dx", [2048, 128, 384], false, false),
    ("laptop qkv dw", [384, 128, 2048], true, false),
    ("laptop out forward", [2048, 128, 128], false, true),
    ("laptop ffn forward", [2048, 512, 128], false, true),
    ("laptop ffn dx", [2048, 128, 512], false, false),
    ("laptop ffn dw", [512, 128, 2048], true, false),
    ("laptop logits forward", [2048, 4096, 128], false, true),
    ("laptop logits dx", [2048, 128, 4096], false, false),
    ("laptop logits dw", [4096, 128, 2048], true, false),
];

struct Arguments {
    words: Vec<String>,
    kernel: Option<String>,
    /// Only the kernels that the fixed rule takes.
    rule: bool,
    dtype: DType,
    seconds: f64,
}

fn arguments() -> std::result::Result<Arguments, String> {
    let mut found =
        Arguments { words: Vec::new(), kernel: None, rule: false, dtype: DType::F32, seconds: 2.0 };
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--bench" => {}
            "--rule" => found.rule = true,
            "--kernel" => found.kernel = Some(value()?),
            "--seconds" => found.seconds = value()?.parse().map_err(|_| "--seconds wants a number")?,
            "--dtype" => {
                found.dtype = match value()?.as_str() {
                    "f32" => DType::F32,
                    "bf16" => DType::Bf16,
                    "f16" => DType::F16,
                    other => return Err(format!("--dtype {other}: f32, bf16 or f16")),
                }
            }
            word => found.words.push(word.to_owned()),
        }
    }
    Ok(found)
}

/// Processor seconds of this process, user and system, where Linux tells them (in hundredths).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: state is field 3, the two times are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = [fields.get(11)?, fields.get(12)?].iter().map(|t| t.parse().unwrap_or(0.0)).sum();
    Some(ticks / 100.0)
}

fn measure(backend: &WgpuBackend, arguments: &Arguments) -> Result<()> {
    for (name, [m, n, k], trans_a, trans_b) in CASES {
        if !arguments.words.iter().all(|word| name.contains(word.as_str())) {
            continue;
        }
        let tensor = |shape: [usize; 2], seed| {
            let shape = Shape::from(shape);
            let exact = backend.alloc(Class::Activations, DType::F32, shape)?;
            let stream = Stream { seed, stream: 1 };
            let data: Vec<f32> = (0..exact.len() as u64).map(|i| stream.uniform(i) - 0.5).collect();
            backend.write(exact.view(), bytemuck::cast_slice(&data))?;
            let tensor = backend.alloc(Class::Activations, arguments.dtype, shape)?;
            backend.cast(Cast { src: exact.view(), dst: tensor.view() })?;
            Ok::<_, backend::Error>(tensor)
        };
        let a = tensor(if trans_a { [k, m] } else { [m, k] }, 1)?;
        let b = tensor(if trans_b { [n, k] } else { [k, n] }, 2)?;
        let c = tensor([m, n], 3)?;
        let run = || -> Result<()> {
            let (a, b, c) = (a.view(), b.view(), c.view());
            backend.matmul(Matmul { a, b, c, trans_a, trans_b, alpha: 1.0, beta: 0.0 })?;
            backend.sync()
        };
        run()?;
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let mut runs = 0;
        while start.elapsed() < Duration::from_secs_f64(arguments.seconds) {
            run()?;
            runs += 1;
        }
        let flops = f64::from(runs) * 2.0 * (m * n * k) as f64;
        let by_clock = flops / start.elapsed().as_secs_f64() / 1e9;
        let by_cpu = match cpu_seconds().zip(cpu) {
            Some((after, before)) if after > before => format!("{:10.1}", 2e-9 * flops / (after - before)),
            _ => "         -".to_owned(),
        };
        println!("  {name:24} {by_clock:10.1} {by_cpu}");
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments = arguments()?;
    let mut backend = match WgpuBackend::new(&Choice::Any { name: None }, Duration::from_secs(120)) {
        Ok(backend) => backend,
        Err(error) => {
            println!("skipped: {error}");
            return Ok(());
        }
    };
    println!("{}, {}", backend.adapter(), arguments.dtype);
    let head = |name| {
        println!("{name:26} {:>10} {:>10}   GFLOP/s by the clock, and per 2 CPU-seconds", "clock", "CPU");
    };
    if arguments.rule {
        head("by the rule");
        return Ok(measure(&backend, &arguments)?);
    }
    for kernel in backend.matmul_kernels() {
        if arguments.kernel.as_ref().is_none_or(|wanted| wanted == kernel) {
            head(kernel);
            backend.pin_matmul(kernel)?;
            measure(&backend, &arguments)?;
        }
    }
    Ok(())
}
