import { Check, Minus } from 'lucide-react';
import { Checkbox as RadixCheckbox, RadioGroup as RadixRadio, Switch as RadixSwitch } from 'radix-ui';
import { useId, type ComponentProps, type ReactNode } from 'react';
import { cn } from './cn';

type Labelled = { label: ReactNode; hint?: ReactNode; className?: string | undefined };

function Row({
  id,
  label,
  hint,
  className,
  end = false,
  children,
}: Labelled & { id: string; end?: boolean; children: ReactNode }) {
  return (
    <div className={cn('flex items-start gap-2.5 pointer-coarse:py-2', end && 'justify-between', className)}>
      {!end && children}
      <span className="flex min-w-0 flex-col">
        <label htmlFor={id} className="text-sm text-fg">
          {label}
        </label>
        {hint !== undefined && (
          <span id={`${id}-hint`} className="text-xs text-fg-3">
            {hint}
          </span>
        )}
      </span>
      {end && children}
    </div>
  );
}

export function Checkbox({
  label,
  hint,
  className,
  ...props
}: Labelled & Omit<ComponentProps<typeof RadixCheckbox.Root>, 'id' | 'className'>) {
  const id = useId();
  return (
    <Row id={id} label={label} hint={hint} className={className}>
      <RadixCheckbox.Root
        id={id}
        aria-describedby={hint === undefined ? undefined : `${id}-hint`}
        className="group mt-0.5 flex size-4 shrink-0 items-center justify-center rounded-sm border border-line-strong bg-surface text-on-accent disabled:opacity-50 data-[state=checked]:border-accent data-[state=checked]:bg-accent data-[state=indeterminate]:border-accent data-[state=indeterminate]:bg-accent"
        {...props}
      >
        <RadixCheckbox.Indicator>
          <Check aria-hidden strokeWidth={3} className="size-3 group-data-[state=indeterminate]:hidden" />
          <Minus
            aria-hidden
            strokeWidth={3}
            className="hidden size-3 group-data-[state=indeterminate]:block"
          />
        </RadixCheckbox.Indicator>
      </RadixCheckbox.Root>
    </Row>
  );
}

export function Switch({
  label,
  hint,
  className,
  ...props
}: Labelled & Omit<ComponentProps<typeof RadixSwitch.Root>, 'id' | 'className'>) {
  const id = useId();
  return (
    <Row id={id} label={label} hint={hint} className={className} end>
      <RadixSwitch.Root
        id={id}
        aria-describedby={hint === undefined ? undefined : `${id}-hint`}
        className="mt-0.5 inline-flex h-5 w-9 shrink-0 items-center rounded-full border border-line-strong bg-sunken transition-colors disabled:opacity-50 data-[state=checked]:border-accent data-[state=checked]:bg-accent"
        {...props}
      >
        <RadixSwitch.Thumb className="block size-3.5 translate-x-0.5 rounded-full bg-fg-2 shadow-sm transition-transform data-[state=checked]:translate-x-[18px] data-[state=checked]:bg-on-accent" />
      </RadixSwitch.Root>
    </Row>
  );
}

export type RadioOption<T extends string> = {
  value: T;
  label: ReactNode;
  hint?: ReactNode;
  disabled?: boolean;
};

export function RadioGroup<T extends string>({
  value,
  onChange,
  options,
  label,
  className,
}: {
  value: T;
  onChange: (value: T) => void;
  options: readonly RadioOption<T>[];
  label: string;
  className?: string | undefined;
}) {
  const id = useId();
  return (
    <RadixRadio.Root
      value={value}
      onValueChange={(next) => onChange(next as T)}
      aria-label={label}
      className={cn('flex flex-col gap-2', className)}
    >
      {options.map((option) => (
        <Row key={option.value} id={`${id}-${option.value}`} label={option.label} hint={option.hint}>
          <RadixRadio.Item
            id={`${id}-${option.value}`}
            value={option.value}
            disabled={option.disabled ?? false}
            className="mt-0.5 flex size-4 shrink-0 items-center justify-center rounded-full border border-line-strong bg-surface disabled:opacity-50 data-[state=checked]:border-accent"
          >
            <RadixRadio.Indicator className="size-2 rounded-full bg-accent" />
          </RadixRadio.Item>
        </Row>
      ))}
    </RadixRadio.Root>
  );
}

/** A few choices side by side, one of them taken. */
export function Segmented<T extends string>({
  value,
  onChange,
  options,
  label,
  className,
}: {
  value: T;
  onChange: (value: T) => void;
  options: readonly { value: T; label: ReactNode }[];
  label: string;
  className?: string | undefined;
}) {
  return (
    <RadixRadio.Root
      value={value}
      onValueChange={(next) => onChange(next as T)}
      aria-label={label}
      orientation="horizontal"
      className={cn('inline-flex rounded-md border border-line bg-sunken p-0.5', className)}
    >
      {options.map((option) => (
        <RadixRadio.Item
          key={option.value}
          value={option.value}
          className="flex h-7 flex-1 items-center justify-center gap-1.5 rounded-sm px-3 text-sm whitespace-nowrap text-fg-2 hover:text-fg data-[state=checked]:bg-raised data-[state=checked]:font-medium data-[state=checked]:text-fg data-[state=checked]:shadow-sm pointer-coarse:h-11"
        >
          {option.label}
        </RadixRadio.Item>
      ))}
    </RadixRadio.Root>
  );
}
