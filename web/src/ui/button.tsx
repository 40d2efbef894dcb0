import { LoaderCircle, type LucideIcon } from 'lucide-react';
import { Slot } from 'radix-ui';
import type { ComponentProps, ReactNode } from 'react';
import { cn } from './cn';
import { Tooltip } from './tooltip';

export type ButtonVariant = 'primary' | 'secondary' | 'ghost' | 'danger' | 'danger-ghost';
export type ButtonSize = 'sm' | 'md' | 'lg';

const BASE =
  'inline-flex shrink-0 items-center justify-center gap-1.5 rounded-md font-medium whitespace-nowrap select-none transition-[background-color,border-color,color,box-shadow] duration-100 disabled:opacity-50 aria-disabled:opacity-50 [&_svg]:shrink-0';

const VARIANTS: Record<ButtonVariant, string> = {
  primary: 'bg-accent text-on-accent shadow-sm enabled:hover:bg-accent-hover',
  secondary:
    'border border-line bg-surface text-fg shadow-sm enabled:hover:border-line-strong enabled:hover:bg-raised',
  ghost:
    'text-fg-2 enabled:hover:bg-hover enabled:hover:text-fg enabled:active:bg-active aria-expanded:bg-hover',
  danger: 'bg-bad-solid text-on-accent shadow-sm enabled:hover:brightness-110',
  'danger-ghost': 'text-bad enabled:hover:bg-bad-soft',
};

const SIZES: Record<ButtonSize, string> = {
  sm: 'h-7 px-2.5 text-sm pointer-coarse:h-11 pointer-coarse:px-3',
  md: 'h-8 px-3 text-sm pointer-coarse:h-11 pointer-coarse:px-4',
  lg: 'h-10 px-4 text-base pointer-coarse:h-11',
};

export type ButtonProps = ComponentProps<'button'> & {
  variant?: ButtonVariant;
  size?: ButtonSize;
  /** Shows a spinner and takes no clicks. */
  busy?: boolean;
  icon?: LucideIcon;
  /** Renders the only child with the button's looks: for links. */
  asChild?: boolean;
};

export function Button({
  variant = 'secondary',
  size = 'md',
  busy = false,
  icon: Icon,
  asChild = false,
  className,
  children,
  disabled,
  type = 'button',
  ...props
}: ButtonProps) {
  const classes = cn(BASE, VARIANTS[variant], SIZES[size], className);
  if (asChild) {
    // A link has no :enabled, so the hover classes are said again.
    return (
      <Slot.Root className={cn(classes.replaceAll('enabled:', ''))} {...props}>
        {children}
      </Slot.Root>
    );
  }
  return (
    <button
      type={type}
      className={classes}
      disabled={disabled === true || busy}
      aria-busy={busy || undefined}
      {...props}
    >
      {busy ? (
        <LoaderCircle aria-hidden className="size-4 animate-spin" />
      ) : (
        Icon && <Icon aria-hidden className="size-4" />
      )}
      {children}
    </button>
  );
}

export type IconButtonProps = Omit<ButtonProps, 'children' | 'asChild' | 'icon'> & {
  /** What it does, for the tooltip and for screen readers. */
  label: string;
  icon: LucideIcon;
  shortcut?: ReactNode;
  tooltipSide?: 'top' | 'right' | 'bottom' | 'left';
};

export function IconButton({
  label,
  icon: Icon,
  shortcut,
  size = 'md',
  variant = 'ghost',
  busy = false,
  tooltipSide = 'bottom',
  disabled,
  className,
  type = 'button',
  ...props
}: IconButtonProps) {
  const square = { sm: 'size-7', md: 'size-8', lg: 'size-10' }[size];
  return (
    <Tooltip content={label} shortcut={shortcut} side={tooltipSide}>
      <button
        type={type}
        aria-label={label}
        aria-busy={busy || undefined}
        disabled={disabled === true || busy}
        className={cn(BASE, VARIANTS[variant], square, 'pointer-coarse:size-11', className)}
        {...props}
      >
        {busy ? (
          <LoaderCircle aria-hidden className="size-4 animate-spin" />
        ) : (
          <Icon aria-hidden className="size-4" />
        )}
      </button>
    </Tooltip>
  );
}
